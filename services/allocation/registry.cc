#include "services/allocation/registry.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/allocation/calibration_check.h"
#include "services/allocation/evaluation_check.h"
#include "services/allocation/page.h"
#include "services/allocation/store/keys.h"
#include "services/allocation/timestamp.h"
#include "services/common/canonical.h"
#include "services/common/quantizers.h"
#include "services/common/status.h"

namespace ratequant::allocation {
namespace {

constexpr size_t kParsedBytes = 64 << 20;

absl::Status Corrupt(absl::string_view what) {
  return MakeError(absl::StatusCode::kDataLoss, "STORE_CORRUPT",
                   absl::StrCat("stored data is damaged: ", what));
}

absl::Status ModelNotFound(absl::string_view model) {
  return MakeError(absl::StatusCode::kNotFound, "MODEL_NOT_FOUND",
                   absl::StrCat("no model '", model, "' has a calibration"),
                   {{"model", ModelName(model)}});
}

absl::Status CalibrationNotFound(const ChildName& name) {
  const std::string full = CalibrationName(name.model, name.id);
  return MakeError(absl::StatusCode::kNotFound, "CALIBRATION_NOT_FOUND",
                   absl::StrCat("no calibration '", full, "'"),
                   {{"calibration", full}});
}

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

// What a page token of a listing is bound to: everything but the page.
template <typename Request>
absl::StatusOr<std::string> ListScope(const char* method, Request request) {
  request.clear_page_size();
  request.clear_page_token();
  absl::StatusOr<std::string> bytes = CanonicalBytes(request);
  if (!bytes.ok()) return bytes.status();
  return absl::StrCat(method, " ", *bytes);
}

// What listings show: everything but statistics and arrays.
v1::Calibration MakeHeader(const v1::Calibration& calibration) {
  v1::Calibration header;
  header.set_name(calibration.name());
  *header.mutable_create_time() = calibration.create_time();
  *header.mutable_geometry() = calibration.geometry();
  *header.mutable_capture() = calibration.capture();
  *header.mutable_warnings() = calibration.warnings();
  for (const v1::DistortionTable& table : calibration.tables()) {
    v1::DistortionTable* out = header.add_tables();
    *out->mutable_quantizer() = table.quantizer();
    *out->mutable_key_fit() = table.key_fit();
    *out->mutable_value_fit() = table.value_fit();
    out->set_page_tokens(table.page_tokens());
    out->set_format_version(table.format_version());
  }
  return header;
}

bool Measured(const v1::Calibration& header, const v1::Quantizer& quantizer) {
  return std::any_of(header.tables().begin(), header.tables().end(),
                     [&](const v1::DistortionTable& table) {
                       return CompareQuantizers(table.quantizer(), quantizer) ==
                              0;
                     });
}

// The model as it is with `newest` (a header or a whole calibration) as its
// newest of `count` calibrations.
v1::Model MakeModel(const std::string& model, const v1::Calibration& newest,
                    size_t count) {
  v1::Model out;
  out.set_name(ModelName(model));
  *out.mutable_geometry() = newest.geometry();
  out.set_latest_calibration(newest.name());
  out.set_calibration_count(static_cast<uint32_t>(count));
  *out.mutable_update_time() = newest.create_time();
  return out;
}

}  // namespace

Registry::Registry(Store* store, std::function<absl::Time()> clock)
    : store_(store),
      clock_(std::move(clock)),
      evaluations_(store),
      parsed_(kParsedBytes) {}

absl::StatusOr<std::unique_ptr<Registry>> Registry::Open(Store* store,
                                                         Options options) {
  auto registry =
      std::unique_ptr<Registry>(new Registry(store, std::move(options.clock)));
  absl::Status loaded = registry->Load();
  if (!loaded.ok()) return loaded;
  auto bit_maps = BitMapTable::Open(store, options.bit_map_bytes);
  if (!bit_maps.ok()) return bit_maps.status();
  registry->bit_maps_ = *std::move(bit_maps);
  auto policies = PolicyTable::Open(store, registry->clock_);
  if (!policies.ok()) return policies.status();
  registry->policies_ = *std::move(policies);
  return registry;
}

absl::Status Registry::Load() {
  absl::Status bad = absl::OkStatus();
  absl::Status scanned =
      store_->Scan(Table::kModels, "", "",
                   [&](absl::string_view key, absl::string_view value) {
                     ModelEntry& entry = models_[std::string(key)];
                     if (!entry.model.ParseFromArray(
                             value.data(), static_cast<int>(value.size()))) {
                       bad = Corrupt(absl::StrCat("model ", key));
                     }
                     return bad.ok();
                   });
  if (scanned.ok()) {
    scanned = store_->Scan(
        Table::kCalibrations, kHeaderPrefix, "",
        [&](absl::string_view key, absl::string_view) {
          const std::vector<std::string> parts = absl::StrSplit(key, '/');
          const auto model =
              parts.size() == 4 ? models_.find(parts[1]) : models_.end();
          if (model == models_.end()) {
            bad = Corrupt(absl::StrCat("calibration header ", key));
            return false;
          }
          model->second.by_age[std::string(key)] = parts[3];
          model->second.key_of[parts[3]] = std::string(key);
          return true;
        });
  }
  if (!scanned.ok()) return scanned;
  for (const auto& [model, entry] : models_) {
    if (bad.ok() && entry.by_age.size() != entry.model.calibration_count()) {
      bad = Corrupt(absl::StrCat(
          "model ", model, " counts ", entry.model.calibration_count(),
          " calibrations, ", entry.by_age.size(), " are there"));
    }
  }
  return bad;
}

absl::Status Registry::CheckName(const std::string& model,
                                 v1::Calibration* calibration,
                                 std::string* id) const {
  const std::string claimed = calibration->name();
  calibration->set_name(ModelName(model));
  calibration->clear_create_time();
  absl::StatusOr<std::string> digest = CanonicalDigest(*calibration);
  if (!digest.ok()) {
    return FieldError("INVALID_CALIBRATION", "calibration",
                      digest.status().message());
  }
  *id = *digest;
  const std::string full = CalibrationName(model, *digest);
  if (!claimed.empty() && claimed != ModelName(model) && claimed != full) {
    return FieldError(
        "DIGEST_MISMATCH", "calibration.name",
        absl::StrCat("is '", claimed, "', but the content is '", full, "'"),
        {{"claimed", claimed}, {"computed", full}});
  }
  calibration->set_name(full);
  return absl::OkStatus();
}

// Later than the model's newest, whatever the clock does: the order of
// calibrations is the order they were stored in.
absl::Time Registry::NextCreateTime(const std::string& model) const {
  const absl::Time now = absl::FromUnixMicros(absl::ToUnixMicros(clock_()));
  std::shared_lock<std::shared_mutex> lock(index_mutex_);
  const auto found = models_.find(model);
  if (found == models_.end()) return now;
  return std::max(
      now, GetTime(found->second.model.update_time()) + absl::Microseconds(1));
}

absl::StatusOr<std::shared_ptr<const v1::Calibration>> Registry::Create(
    const std::string& model, v1::Calibration calibration) {
  absl::Status valid = CheckCalibration(calibration);
  if (!valid.ok()) return valid;
  ChildName name = {model, ""};
  valid = CheckName(model, &calibration, &name.id);
  if (!valid.ok()) return valid;

  std::lock_guard<std::mutex> write(write_mutex_);
  if (Resolve(name).ok()) return Get(name);
  const absl::Time created = NextCreateTime(model);
  SetTime(created, calibration.mutable_create_time());
  const absl::StatusOr<ModelEntry> before = FindModel(model);
  const size_t count = before.ok() ? before->by_age.size() + 1 : 1;
  const v1::Model updated = MakeModel(model, calibration, count);
  const std::string header_key = HeaderKey(name, created);
  absl::Status written =
      store_->Write({{Table::kCalibrations, CalibrationKey(name),
                      calibration.SerializeAsString()},
                     {Table::kCalibrations, header_key,
                      MakeHeader(calibration).SerializeAsString()},
                     {Table::kModels, model, updated.SerializeAsString()}},
                    Durability::kSynced);
  if (!written.ok()) return written;

  auto stored = std::make_shared<const v1::Calibration>(std::move(calibration));
  parsed_.Put(stored->name(), stored, stored->ByteSizeLong());
  {
    std::unique_lock<std::shared_mutex> lock(index_mutex_);
    ModelEntry& entry = models_[model];
    entry.model = updated;
    entry.by_age[header_key] = name.id;
    entry.key_of[name.id] = header_key;
    if (count == 1) entry.evaluation_state = ++evaluation_states_;
  }
  Notify(model);
  return stored;
}

absl::StatusOr<std::shared_ptr<const v1::Calibration>> Registry::Get(
    const ChildName& name) {
  const std::string full = CalibrationName(name.model, name.id);
  if (auto parsed = parsed_.Get(full)) return parsed;
  absl::StatusOr<std::optional<std::string>> bytes =
      store_->Get(Table::kCalibrations, CalibrationKey(name));
  if (!bytes.ok()) return bytes.status();
  if (!bytes->has_value()) return CalibrationNotFound(name);
  auto calibration = std::make_shared<v1::Calibration>();
  if (!calibration->ParseFromString(**bytes) || calibration->name() != full) {
    return Corrupt(absl::StrCat("calibration ", full));
  }
  parsed_.Put(full, calibration, (*bytes)->size());
  return std::shared_ptr<const v1::Calibration>(std::move(calibration));
}

absl::Status Registry::Delete(const ChildName& name, bool force) {
  std::lock_guard<std::mutex> write(write_mutex_);
  absl::StatusOr<ChildName> exists = Resolve(name);
  if (!exists.ok()) return exists.status();
  absl::StatusOr<ModelEntry> entry = FindModel(name.model);
  if (!entry.ok()) return entry.status();

  BitMapTable::Change change;
  std::vector<std::string> kept;
  absl::Status status = bit_maps_->RemoveAll(name, &change, &kept);
  if (!status.ok()) return status;
  status = RemoveEvaluations(name, kept, force, &change.mutations);
  if (!status.ok()) return status;
  status = RemoveCalibrationRows(name, &*entry, &change.mutations);
  if (!status.ok()) return status;
  status = Write(change, Durability::kSynced);
  if (!status.ok()) return status;

  {
    std::unique_lock<std::shared_mutex> lock(index_mutex_);
    if (entry->by_age.empty()) {
      models_.erase(name.model);
    } else {
      entry->evaluation_state = ++evaluation_states_;
      models_[name.model] = *std::move(entry);
    }
  }
  parsed_.Remove(CalibrationName(name.model, name.id));
  Notify(name.model);
  return absl::OkStatus();
}

// Takes the calibration out of `entry` and adds the changes that do the same in
// the store.
absl::Status Registry::RemoveCalibrationRows(
    const ChildName& name, ModelEntry* entry,
    std::vector<Mutation>* mutations) const {
  const std::string header_key = entry->key_of[name.id];
  entry->key_of.erase(name.id);
  entry->by_age.erase(header_key);
  mutations->push_back(
      {Table::kCalibrations, CalibrationKey(name), std::nullopt});
  mutations->push_back({Table::kCalibrations, header_key, std::nullopt});
  mutations->push_back({Table::kModels, name.model, std::nullopt});
  if (entry->by_age.empty()) return absl::OkStatus();
  const std::string& newest_key = entry->by_age.begin()->first;
  const auto bytes = store_->Get(Table::kCalibrations, newest_key);
  if (!bytes.ok()) return bytes.status();
  v1::Calibration newest;
  if (!bytes->has_value() || !newest.ParseFromString(**bytes)) {
    return Corrupt(absl::StrCat("calibration header ", newest_key));
  }
  entry->model = MakeModel(name.model, newest, entry->by_age.size());
  mutations->back().value = entry->model.SerializeAsString();
  return absl::OkStatus();
}

absl::Status Registry::RemoveEvaluations(
    const ChildName& calibration, const std::vector<std::string>& maps,
    bool force, std::vector<Mutation>* mutations) const {
  size_t count = 0;
  for (const std::string& map :
       std::set<std::string>(maps.begin(), maps.end())) {
    const auto all = evaluations_.All({calibration.model, map});
    if (!all.ok()) return all.status();
    count += all->size();
    for (const v1::Evaluation& evaluation : *all) {
      EvaluationTable::Remove(evaluation, mutations);
    }
  }
  if (count == 0 || force) return absl::OkStatus();
  const std::string name = CalibrationName(calibration.model, calibration.id);
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "CALIBRATION_IN_USE",
      absl::StrCat(count,
                   " evaluations are of bit maps solved "
                   "from ",
                   name,
                   "; delete it with force, which deletes them "
                   "too"),
      {{"calibration", name}, {"evaluations", absl::StrCat(count)}});
}

absl::StatusOr<Registry::ModelEntry> Registry::FindModel(
    const std::string& model) const {
  std::shared_lock<std::shared_mutex> lock(index_mutex_);
  const auto found = models_.find(model);
  if (found == models_.end()) return ModelNotFound(model);
  return found->second;
}

absl::StatusOr<ChildName> Registry::Resolve(const ChildName& name) const {
  std::shared_lock<std::shared_mutex> lock(index_mutex_);
  const auto found = models_.find(name.model);
  if (found == models_.end()) return ModelNotFound(name.model);
  const ModelEntry& entry = found->second;
  if (name.id == kLatestCalibration) {
    return ChildName{name.model, entry.by_age.begin()->second};
  }
  if (entry.key_of.count(name.id) == 0) return CalibrationNotFound(name);
  return name;
}

absl::StatusOr<v1::ListCalibrationsResponse> Registry::ListCalibrations(
    const std::string& model,
    const v1::ListCalibrationsRequest& request) const {
  std::optional<v1::Quantizer> quantizer;
  if (request.has_quantizer()) {
    auto canonical = CanonicalQuantizer(request.quantizer(), "quantizer");
    if (!canonical.ok()) return canonical.status();
    quantizer = *std::move(canonical);
  }
  const absl::StatusOr<std::string> scope =
      ListScope("ListCalibrations", request);
  if (!scope.ok()) return scope.status();
  const auto matches = [&](const v1::Calibration& header) {
    const absl::Time created = GetTime(header.create_time());
    return (!request.has_create_time_from() ||
            created >= GetTime(request.create_time_from())) &&
           (!request.has_create_time_before() ||
            created < GetTime(request.create_time_before())) &&
           (!quantizer.has_value() || Measured(header, *quantizer));
  };
  auto page = ListRows<v1::ListCalibrationsResponse>(
      *store_, Table::kCalibrations, HeaderPrefix(model), *scope,
      request.page_size(), request.page_token(),
      [](auto* response) { return response->mutable_calibrations(); }, matches);
  if (!page.ok()) return page;
  const absl::StatusOr<v1::Model> exists = GetModel(model);
  if (!exists.ok()) return exists.status();
  return page;
}

absl::StatusOr<v1::Model> Registry::GetModel(const std::string& model) const {
  std::shared_lock<std::shared_mutex> lock(index_mutex_);
  const auto found = models_.find(model);
  if (found == models_.end()) return ModelNotFound(model);
  return found->second.model;
}

absl::StatusOr<v1::ListModelsResponse> Registry::ListModels(
    const v1::ListModelsRequest& request) const {
  const absl::StatusOr<int> size = PageSize(request.page_size());
  if (!size.ok()) return size.status();
  const absl::StatusOr<std::string> scope = ListScope("ListModels", request);
  if (!scope.ok()) return scope.status();
  const absl::StatusOr<std::string> after =
      ParsePageToken(*scope, request.page_token());
  if (!after.ok()) return after.status();
  v1::ListModelsResponse response;
  std::shared_lock<std::shared_mutex> lock(index_mutex_);
  const auto listed = [&](auto model) {
    return model != models_.end() &&
           absl::StartsWith(model->first, request.id_prefix());
  };
  auto model = *after < request.id_prefix()
                   ? models_.lower_bound(request.id_prefix())
                   : models_.upper_bound(*after);
  for (; listed(model) && response.models_size() < *size; ++model) {
    *response.add_models() = model->second.model;
  }
  if (listed(model)) {
    response.set_next_page_token(
        MakePageToken(*scope, std::prev(model)->first));
  }
  return response;
}

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
