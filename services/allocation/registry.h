#ifndef RATEQUANT_SERVICES_ALLOCATION_REGISTRY_H_
#define RATEQUANT_SERVICES_ALLOCATION_REGISTRY_H_

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ratequant/v1/allocation_service.pb.h"
#include "ratequant/v1/calibration.pb.h"
#include "services/allocation/lru_cache.h"
#include "services/allocation/store/store.h"
#include "services/common/resource_names.h"

namespace ratequant::allocation {

// Models, their calibrations, and the bit maps solved from them, in a store.
// Which calibrations exist is also kept in memory, so that names resolve
// without reading; calibrations in use are kept parsed.
//
// Thread-safe. Writes wait for each other, reads wait for nobody. Errors as the
// RPCs of RegistryService document them, and those of Store.
class Registry {
 public:
  // Loads what `store` holds; it must outlive the registry. DATA_LOSS
  // (STORE_CORRUPT) when that isn't a registry's. `clock` gives create_time.
  static absl::StatusOr<std::unique_ptr<Registry>> Open(
      Store* store, std::function<absl::Time()> clock = absl::Now);

  // Stores a calibration of a model, synced, and answers with what is stored:
  // the one that was there when the content is the same. `calibration.name` may
  // be empty, the model's or the full name.
  absl::StatusOr<std::shared_ptr<const v1::Calibration>> Create(
      const std::string& model, v1::Calibration calibration);

  // The calibration of a resolved name.
  absl::StatusOr<std::shared_ptr<const v1::Calibration>> Get(
      const ChildName& name);

  // Deletes a calibration and the bit maps solved from it.
  absl::Status Delete(const ChildName& name);

  // Turns "latest" into the newest calibration's id and checks that the
  // calibration exists: MODEL_NOT_FOUND, CALIBRATION_NOT_FOUND.
  absl::StatusOr<ChildName> Resolve(const ChildName& name) const;

  absl::StatusOr<v1::ListCalibrationsResponse> ListCalibrations(
      const std::string& model, int page_size,
      const std::string& page_token) const;
  absl::StatusOr<v1::Model> GetModel(const std::string& model) const;
  absl::StatusOr<v1::ListModelsResponse> ListModels(
      int page_size, const std::string& page_token) const;

  // A bit map stored under a query's key; nullopt when there is none.
  absl::StatusOr<std::optional<v1::BitMap>> GetBitMap(
      const ChildName& calibration, const std::string& key) const;

  // Stores one; NOT_FOUND when the calibration was deleted meanwhile.
  absl::Status PutBitMap(const ChildName& calibration, const std::string& key,
                         const v1::BitMap& map);

 private:
  struct ModelEntry {
    v1::Model model;
    // Calibration id by its header's key, which sorts newest first.
    std::map<std::string, std::string> by_age;
    std::map<std::string, std::string> key_of;  // header key by id
  };

  Registry(Store* store, std::function<absl::Time()> clock);

  absl::Status Load();
  absl::Status CheckName(const std::string& model, v1::Calibration* calibration,
                         std::string* id) const;
  absl::Time NextCreateTime(const std::string& model) const;
  absl::StatusOr<ModelEntry> FindModel(const std::string& model) const;

  Store* const store_;
  const std::function<absl::Time()> clock_;
  std::mutex write_mutex_;  // held over read-modify-write; before index_mutex_
  mutable std::shared_mutex index_mutex_;
  std::map<std::string, ModelEntry> models_;  // by id, guarded by index_mutex_
  LruCache<v1::Calibration> parsed_;
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_REGISTRY_H_
