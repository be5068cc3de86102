#include "services/allocation/bit_map_cache.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/allocation/planner.h"
#include "services/allocation/query.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"
#include "spdlog/spdlog.h"

namespace ratequant::allocation {
namespace {

constexpr size_t kMemoryBytes = 64 << 20;

// Requests that mean the same may differ here: they then meet in the store. The
// parts that are resolved or don't change the map are left out.
std::string MemoryKey(const ChildName& calibration,
                      const v1::GetBitMapRequest& request) {
  v1::GetBitMapRequest key;
  *key.mutable_quantizers() = request.quantizers();
  if (request.has_budget()) *key.mutable_budget() = request.budget();
  if (request.has_policy()) *key.mutable_policy() = request.policy();
  if (request.has_cache()) *key.mutable_cache() = request.cache();
  return absl::StrCat(calibration.model, "/", calibration.id, "/",
                      key.SerializeAsString());
}

}  // namespace

BitMapCache::BitMapCache(Registry* registry)
    : registry_(registry), memory_(kMemoryBytes) {}

absl::StatusOr<ChildName> BitMapCache::Resolve(
    const std::string& model, const std::string& calibration) const {
  const absl::StatusOr<std::string> id = ParseModelName(model, "model");
  if (!id.ok()) return id.status();
  if (calibration.empty()) {
    return registry_->Resolve({*id, kLatestCalibration});
  }
  const absl::StatusOr<ChildName> name =
      ParseCalibrationName(calibration, "calibration");
  if (!name.ok()) return name.status();
  if (name->model != *id) {
    return FieldError(
        "INVALID_NAME", "calibration",
        absl::StrCat("'", calibration, "' isn't a calibration of ", model));
  }
  return registry_->Resolve(*name);
}

std::shared_ptr<const v1::BitMap> BitMapCache::Lookup(
    const ChildName& calibration, const v1::GetBitMapRequest& request) {
  return memory_.Get(MemoryKey(calibration, request));
}

absl::StatusOr<std::shared_ptr<const v1::BitMap>> BitMapCache::Get(
    const ChildName& calibration, const v1::GetBitMapRequest& request) {
  const std::string memory_key = MemoryKey(calibration, request);
  if (auto map = memory_.Get(memory_key)) return map;
  const auto measured = registry_->Get(calibration);
  if (!measured.ok()) return measured.status();
  const absl::StatusOr<Query> query = MakeQuery(request, **measured);
  if (!query.ok()) return query.status();
  const absl::StatusOr<std::string> key = QueryKey(*query, **measured);
  if (!key.ok()) {
    return FieldError("INVALID_POLICY", "policy", key.status().message());
  }
  absl::StatusOr<std::optional<v1::BitMap>> stored =
      registry_->GetBitMap(calibration, *key);
  std::shared_ptr<const v1::BitMap> map;
  if (stored.ok() && stored->has_value()) {
    map = std::make_shared<const v1::BitMap>(**std::move(stored));
  } else {
    if (!stored.ok()) {
      spdlog::warn("solving again: {}", std::string(stored.status().message()));
    }
    absl::StatusOr<v1::BitMap> solved = PlanBitMap(**measured, *query);
    if (!solved.ok()) return solved.status();
    map = std::make_shared<const v1::BitMap>(*std::move(solved));
    // The answer is right whether or not it could be kept.
    const absl::Status put = registry_->PutBitMap(calibration, *key, *map);
    if (!put.ok())
      spdlog::warn("bit map not stored: {}", std::string(put.message()));
  }
  memory_.Put(memory_key, map, map->ByteSizeLong() + memory_key.size());
  return map;
}

}  // namespace ratequant::allocation
