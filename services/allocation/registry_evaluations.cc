// The registry's bit maps and evaluations; its calibrations and models are in
// registry.cc.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/allocation/evaluation_check.h"
#include "services/allocation/registry.h"
#include "services/allocation/timestamp.h"
#include "services/common/canonical.h"
#include "services/common/status.h"

namespace ratequant::allocation {
namespace {

absl::Status BitMapNotFound(const char* field, const std::string& name) {
  return MakeError(absl::StatusCode::kNotFound, "BIT_MAP_NOT_FOUND",
                   absl::StrCat(field, ": no bit map '", name,
                                "' is stored; ask for it again with GetBitMap"),
                   {{"field", field}, {"bit_map", name}});
}

absl::Status EvaluationNotFound(const std::string& name) {
  return MakeError(absl::StatusCode::kNotFound, "EVALUATION_NOT_FOUND",
                   absl::StrCat("no evaluation '", name, "'"),
                   {{"evaluation", name}});
}

}  // namespace

absl::Status Registry::Write(const BitMapTable::Change& change,
                             Durability durability) {
  absl::Status written = store_->Write(change.mutations, durability);
  if (written.ok()) bit_maps_->Apply(change);
  return written;
}

absl::Status Registry::PutBitMap(const ChildName& calibration,
                                 const std::string& key,
                                 const v1::BitMap& map) {
  std::lock_guard<std::mutex> write(write_mutex_);
  absl::StatusOr<ChildName> exists = Resolve(calibration);
  if (!exists.ok()) return exists.status();
  BitMapTable::Change change;
  absl::Status status = bit_maps_->Put(calibration, key, map, &change);
  // A lost bit map is solved again: no need to wait for the disk.
  return status.ok() ? Write(change, Durability::kBuffered) : status;
}

absl::StatusOr<v1::BitMap> Registry::FindMap(const ChildName& map,
                                             const char* field) const {
  absl::StatusOr<std::optional<v1::BitMap>> found = bit_maps_->Find(map);
  if (!found.ok()) return found.status();
  if (!found->has_value()) {
    return BitMapNotFound(field, BitMapName(map.model, map.id));
  }
  return **std::move(found);
}

absl::StatusOr<v1::Evaluation> Registry::RecordEvaluation(
    const ChildName& map, v1::Evaluation evaluation) {
  const auto uniform = ParseBitMapName(evaluation.uniform_bit_map(),
                                       "evaluation.uniform_bit_map");
  if (!uniform.ok()) return uniform.status();
  std::lock_guard<std::mutex> write(write_mutex_);
  const absl::StatusOr<v1::BitMap> measured = FindMap(map, "bit_map");
  if (!measured.ok()) return measured.status();
  const absl::StatusOr<v1::BitMap> compared =
      FindMap(*uniform, "evaluation.uniform_bit_map");
  if (!compared.ok()) return compared.status();
  absl::Status valid = CheckEvaluation(evaluation, *measured, *compared);
  if (!valid.ok()) return valid;

  const std::string claimed = evaluation.name();
  evaluation.set_name(measured->name());
  evaluation.clear_create_time();
  const absl::StatusOr<std::string> digest = CanonicalDigest(evaluation);
  if (!digest.ok()) {
    return FieldError("INVALID_EVALUATION", "evaluation",
                      digest.status().message());
  }
  const EvaluationName name = {map, *digest};
  evaluation.set_name(EvaluationNameText(name));
  if (!claimed.empty() && claimed != evaluation.name()) {
    return FieldError("DIGEST_MISMATCH", "evaluation.name",
                      absl::StrCat("is '", claimed, "', but the content is '",
                                   evaluation.name(), "'"),
                      {{"claimed", claimed}, {"computed", evaluation.name()}});
  }
  absl::StatusOr<std::optional<v1::Evaluation>> stored = evaluations_.Get(name);
  if (!stored.ok()) return stored.status();
  if (stored->has_value()) return **std::move(stored);

  absl::StatusOr<absl::Time> created = NextEvaluationTime(map, *uniform);
  if (!created.ok()) return created.status();
  SetTime(*created, evaluation.mutable_create_time());
  BitMapTable::Change change;
  EvaluationTable::Add(evaluation, &change.mutations);
  for (const ChildName& kept : {map, *uniform}) {
    absl::Status status = bit_maps_->Keep(kept, &change);
    if (!status.ok()) return status;
    if (map.id == uniform->id) break;
  }
  absl::Status written = Write(change, Durability::kSynced);
  if (!written.ok()) return written;
  EvaluationsChanged(map.model);
  return evaluation;
}

// Later than what measured the same maps before, whatever the clock does: the
// newest is the one that was recorded last.
absl::StatusOr<absl::Time> Registry::NextEvaluationTime(
    const ChildName& map, const ChildName& uniform) const {
  absl::Time next = absl::FromUnixMicros(absl::ToUnixMicros(clock_()));
  for (const ChildName& measured : {map, uniform}) {
    const auto newest = evaluations_.Newest(measured);
    if (!newest.ok()) return newest.status();
    if (!newest->has_value()) continue;
    next = std::max(next,
                    GetTime((*newest)->create_time()) + absl::Microseconds(1));
  }
  return next;
}

absl::Status Registry::DeleteEvaluation(const EvaluationName& name) {
  std::lock_guard<std::mutex> write(write_mutex_);
  const auto found = evaluations_.Get(name);
  if (!found.ok()) return found.status();
  if (!found->has_value()) return EvaluationNotFound(EvaluationNameText(name));
  const v1::Evaluation& gone = **found;
  const auto uniform = ParseBitMapName(gone.uniform_bit_map(), "uniform");
  if (!uniform.ok()) return uniform.status();
  BitMapTable::Change change;
  EvaluationTable::Remove(gone, &change.mutations);
  absl::Status status = ReleaseUnlessMeasured(name.map, gone, &change);
  if (status.ok() && uniform->id != name.map.id) {
    status = ReleaseUnlessMeasured(*uniform, gone, &change);
  }
  if (status.ok()) status = Write(change, Durability::kSynced);
  if (status.ok()) EvaluationsChanged(name.map.model);
  return status;
}

absl::Status Registry::ReleaseUnlessMeasured(const ChildName& map,
                                             const v1::Evaluation& gone,
                                             BitMapTable::Change* change) {
  const absl::StatusOr<bool> others = evaluations_.AnyBut(map, gone);
  if (!others.ok()) return others.status();
  return *others ? absl::OkStatus() : bit_maps_->Release(map, change);
}

absl::StatusOr<v1::ListEvaluationsResponse> Registry::ListEvaluations(
    const ChildName& parent, int page_size,
    const std::string& page_token) const {
  const absl::StatusOr<v1::Model> exists = GetModel(parent.model);
  if (!exists.ok()) return exists.status();
  return evaluations_.List(parent, page_size, page_token);
}

uint64_t Registry::EvaluationState(const std::string& model) const {
  std::shared_lock<std::shared_mutex> lock(index_mutex_);
  const auto found = models_.find(model);
  return found == models_.end() ? 0 : found->second.evaluation_state;
}

void Registry::EvaluationsChanged(const std::string& model) {
  {
    std::unique_lock<std::shared_mutex> lock(index_mutex_);
    models_[model].evaluation_state = ++evaluation_states_;
  }
  Notify(model);
}

void Registry::Notify(const std::string& model) const {
  if (listener_ != nullptr) listener_(model);
}

}  // namespace ratequant::allocation
