#include "services/allocation/registry.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/allocation/calibration_check.h"
#include "services/allocation/page.h"
#include "services/allocation/store/keys.h"
#include "services/allocation/timestamp.h"
#include "services/common/canonical.h"
#include "services/common/quantizers.h"
#include "services/common/status.h"

namespace ratequant::allocation {
namespace {

// Calibrations are needed for budgets nobody asked for yet; one is up to 1 MiB.
constexpr size_t kParsedBytes = 24 << 20;

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

}  // namespace ratequant::allocation
