#include "services/allocation/registry.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "services/allocation/calibration_check.h"
#include "services/allocation/page_token.h"
#include "services/common/canonical.h"
#include "services/common/status.h"

namespace ratequant::allocation {
namespace {

// Keys are persisted: do not change.
//   calibrations  d/{model}/{id}          the calibration
//                 h/{model}/{age}/{id}    its header, newest first
//   models        {model}                 the model
//   bit_maps      {model}/{id}/{query}    a map solved from calibration id
constexpr char kHeaderPrefix[] = "h/";

constexpr size_t kParsedBytes = 64 << 20;

std::string DataKey(const ChildName& name) {
  return absl::StrCat("d/", name.model, "/", name.id);
}

std::string HeaderPrefix(absl::string_view model) {
  return absl::StrCat(kHeaderPrefix, model, "/");
}

// {age} counts down with time, in digits that sort like the number.
std::string HeaderKey(const ChildName& name, absl::Time created) {
  const int64_t age =
      std::numeric_limits<int64_t>::max() - absl::ToUnixMicros(created);
  return absl::StrFormat("%s%020d/%s", HeaderPrefix(name.model), age, name.id);
}

std::string BitMapPrefix(const ChildName& name) {
  return absl::StrCat(name.model, "/", name.id, "/");
}

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

absl::Time GetTime(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) +
         absl::Nanoseconds(time.nanos());
}

void SetTime(absl::Time time, google::protobuf::Timestamp* out) {
  const int64_t seconds = absl::ToUnixSeconds(time);
  out->set_seconds(seconds);
  out->set_nanos(static_cast<int32_t>(
      absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
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
    : store_(store), clock_(std::move(clock)), parsed_(kParsedBytes) {}

absl::StatusOr<std::unique_ptr<Registry>> Registry::Open(
    Store* store, std::function<absl::Time()> clock) {
  auto registry =
      std::unique_ptr<Registry>(new Registry(store, std::move(clock)));
  absl::Status loaded = registry->Load();
  if (!loaded.ok()) return loaded;
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
  absl::Status written = store_->Write(
      {{Table::kCalibrations, DataKey(name), calibration.SerializeAsString()},
       {Table::kCalibrations, header_key,
        MakeHeader(calibration).SerializeAsString()},
       {Table::kModels, model, updated.SerializeAsString()}},
      Durability::kSynced);
  if (!written.ok()) return written;

  auto stored = std::make_shared<const v1::Calibration>(std::move(calibration));
  parsed_.Put(stored->name(), stored, stored->ByteSizeLong());
  std::unique_lock<std::shared_mutex> lock(index_mutex_);
  ModelEntry& entry = models_[model];
  entry.model = updated;
  entry.by_age[header_key] = name.id;
  entry.key_of[name.id] = header_key;
  return stored;
}

absl::StatusOr<std::shared_ptr<const v1::Calibration>> Registry::Get(
    const ChildName& name) {
  const std::string full = CalibrationName(name.model, name.id);
  if (auto parsed = parsed_.Get(full)) return parsed;
  absl::StatusOr<std::optional<std::string>> bytes =
      store_->Get(Table::kCalibrations, DataKey(name));
  if (!bytes.ok()) return bytes.status();
  if (!bytes->has_value()) return CalibrationNotFound(name);
  auto calibration = std::make_shared<v1::Calibration>();
  if (!calibration->ParseFromString(**bytes) || calibration->name() != full) {
    return Corrupt(absl::StrCat("calibration ", full));
  }
  parsed_.Put(full, calibration, (*bytes)->size());
  return std::shared_ptr<const v1::Calibration>(std::move(calibration));
}

absl::Status Registry::Delete(const ChildName& name) {
  std::lock_guard<std::mutex> write(write_mutex_);
  absl::StatusOr<ChildName> exists = Resolve(name);
  if (!exists.ok()) return exists.status();
  absl::StatusOr<ModelEntry> entry = FindModel(name.model);
  if (!entry.ok()) return entry.status();
  const std::string header_key = entry->key_of[name.id];
  entry->key_of.erase(name.id);
  entry->by_age.erase(header_key);

  std::vector<Mutation> mutations = {
      {Table::kCalibrations, DataKey(name), std::nullopt},
      {Table::kCalibrations, header_key, std::nullopt},
      {Table::kModels, name.model, std::nullopt}};
  if (!entry->by_age.empty()) {
    const auto& [newest_key, newest_id] = *entry->by_age.begin();
    const auto bytes = store_->Get(Table::kCalibrations, newest_key);
    if (!bytes.ok()) return bytes.status();
    v1::Calibration newest;
    if (!bytes->has_value() || !newest.ParseFromString(**bytes)) {
      return Corrupt(absl::StrCat("calibration header ", newest_key));
    }
    entry->model = MakeModel(name.model, newest, entry->by_age.size());
    mutations.back().value = entry->model.SerializeAsString();
  }
  absl::Status scanned = store_->Scan(
      Table::kBitMaps, BitMapPrefix(name), "",
      [&](absl::string_view key, absl::string_view) {
        mutations.push_back({Table::kBitMaps, std::string(key), std::nullopt});
        return true;
      });
  if (!scanned.ok()) return scanned;
  absl::Status written = store_->Write(mutations, Durability::kSynced);
  if (!written.ok()) return written;

  {
    std::unique_lock<std::shared_mutex> lock(index_mutex_);
    if (entry->by_age.empty()) {
      models_.erase(name.model);
    } else {
      models_[name.model] = *std::move(entry);
    }
  }
  parsed_.Remove(CalibrationName(name.model, name.id));
  return absl::OkStatus();
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
    const std::string& model, int page_size,
    const std::string& page_token) const {
  const absl::StatusOr<int> size = PageSize(page_size);
  if (!size.ok()) return size.status();
  const std::string scope = absl::StrCat("ListCalibrations ", model);
  const absl::StatusOr<std::string> after = ParsePageToken(scope, page_token);
  if (!after.ok()) return after.status();
  const absl::StatusOr<v1::Model> exists = GetModel(model);
  if (!exists.ok()) return exists.status();

  v1::ListCalibrationsResponse response;
  std::string last;
  bool more = false, bad = false;
  absl::Status scanned =
      store_->Scan(Table::kCalibrations, HeaderPrefix(model), *after,
                   [&](absl::string_view key, absl::string_view value) {
                     more = response.calibrations_size() == *size;
                     if (more) return false;
                     bad = !response.add_calibrations()->ParseFromArray(
                         value.data(), static_cast<int>(value.size()));
                     last = std::string(key);
                     return !bad;
                   });
  if (!scanned.ok()) return scanned;
  if (bad) return Corrupt(absl::StrCat("calibration header ", last));
  if (more) response.set_next_page_token(MakePageToken(scope, last));
  return response;
}

absl::StatusOr<v1::Model> Registry::GetModel(const std::string& model) const {
  std::shared_lock<std::shared_mutex> lock(index_mutex_);
  const auto found = models_.find(model);
  if (found == models_.end()) return ModelNotFound(model);
  return found->second.model;
}

absl::StatusOr<v1::ListModelsResponse> Registry::ListModels(
    int page_size, const std::string& page_token) const {
  const absl::StatusOr<int> size = PageSize(page_size);
  if (!size.ok()) return size.status();
  constexpr char kScope[] = "ListModels";
  const absl::StatusOr<std::string> after = ParsePageToken(kScope, page_token);
  if (!after.ok()) return after.status();
  v1::ListModelsResponse response;
  std::shared_lock<std::shared_mutex> lock(index_mutex_);
  auto model = models_.upper_bound(*after);
  for (; model != models_.end() && response.models_size() < *size; ++model) {
    *response.add_models() = model->second.model;
  }
  if (model != models_.end() && response.models_size() > 0) {
    response.set_next_page_token(
        MakePageToken(kScope, std::prev(model)->first));
  }
  return response;
}

absl::StatusOr<std::optional<v1::BitMap>> Registry::GetBitMap(
    const ChildName& calibration, const std::string& key) const {
  absl::StatusOr<std::optional<std::string>> bytes =
      store_->Get(Table::kBitMaps, BitMapPrefix(calibration) + key);
  if (!bytes.ok()) return bytes.status();
  if (!bytes->has_value()) return std::optional<v1::BitMap>();
  v1::BitMap map;
  if (!map.ParseFromString(**bytes)) {
    return Corrupt(absl::StrCat(
        "a bit map of ", CalibrationName(calibration.model, calibration.id)));
  }
  return std::optional<v1::BitMap>(std::move(map));
}

absl::Status Registry::PutBitMap(const ChildName& calibration,
                                 const std::string& key,
                                 const v1::BitMap& map) {
  std::lock_guard<std::mutex> write(write_mutex_);
  absl::StatusOr<ChildName> exists = Resolve(calibration);
  if (!exists.ok()) return exists.status();
  // A lost bit map is solved again: no need to wait for the disk.
  return store_->Write({{Table::kBitMaps, BitMapPrefix(calibration) + key,
                         map.SerializeAsString()}},
                       Durability::kBuffered);
}

}  // namespace ratequant::allocation
