#ifndef RATEQUANT_SERVICES_ALLOCATION_REGISTRY_H_
#define RATEQUANT_SERVICES_ALLOCATION_REGISTRY_H_

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ratequant/v1/allocation_service.pb.h"
#include "ratequant/v1/calibration.pb.h"
#include "services/allocation/bit_map_table.h"
#include "services/allocation/evaluation_table.h"
#include "services/allocation/lru_cache.h"
#include "services/allocation/policy_table.h"
#include "services/allocation/store/store.h"
#include "services/common/resource_names.h"

namespace ratequant::allocation {

// Models, their calibrations, the bit maps solved from them and the evaluations
// of those, in a store. Which calibrations exist is also kept in memory, so
// that names resolve without reading; calibrations in use are kept parsed.
//
// Thread-safe. Writes wait for each other, reads wait for nobody. Errors as the
// RPCs of RegistryService document them, and those of Store.
class Registry {
 public:
  struct Options {
    // Most bytes of bit maps without evaluations.
    uint64_t bit_map_bytes = uint64_t{1} << 30;
    // Gives create_time.
    std::function<absl::Time()> clock = absl::Now;
  };

  // Loads what `store` holds; it must outlive the registry. DATA_LOSS
  // (STORE_CORRUPT) when that isn't a registry's.
  static absl::StatusOr<std::unique_ptr<Registry>> Open(Store* store,
                                                        Options options);

  // Calls `listener` with a model's id after every change that may change which
  // bit map answers a query. Set it before anything changes; it must be quick
  // and not call back.
  void SetListener(std::function<void(const std::string& model)> listener) {
    listener_ = std::move(listener);
  }

  // Stores a calibration of a model, synced, and answers with what is stored:
  // the one that was there when the content is the same. `calibration.name` may
  // be empty, the model's or the full name.
  absl::StatusOr<std::shared_ptr<const v1::Calibration>> Create(
      const std::string& model, v1::Calibration calibration);

  // The calibration of a resolved name.
  absl::StatusOr<std::shared_ptr<const v1::Calibration>> Get(
      const ChildName& name);

  // Deletes a calibration and the bit maps solved from it, with `force` also
  // their evaluations.
  absl::Status Delete(const ChildName& name, bool force);

  // Turns "latest" into the newest calibration's id and checks that the
  // calibration exists: MODEL_NOT_FOUND, CALIBRATION_NOT_FOUND.
  absl::StatusOr<ChildName> Resolve(const ChildName& name) const;

  // `request.parent` has been parsed to `model`.
  absl::StatusOr<v1::ListCalibrationsResponse> ListCalibrations(
      const std::string& model,
      const v1::ListCalibrationsRequest& request) const;
  absl::StatusOr<v1::Model> GetModel(const std::string& model) const;
  absl::StatusOr<v1::ListModelsResponse> ListModels(
      const v1::ListModelsRequest& request) const;

  // A bit map stored under a query's key; nullopt when there is none.
  absl::StatusOr<std::optional<v1::BitMap>> GetBitMap(
      const ChildName& calibration, const std::string& key) const {
    return bit_maps_->Get(calibration, key);
  }

  // Stores one; NOT_FOUND when the calibration was deleted meanwhile.
  absl::Status PutBitMap(const ChildName& calibration, const std::string& key,
                         const v1::BitMap& map);

  // Stores a measurement of a map, synced, and answers with what is stored.
  absl::StatusOr<v1::Evaluation> RecordEvaluation(const ChildName& map,
                                                  v1::Evaluation evaluation);

  absl::Status DeleteEvaluation(const EvaluationName& name);

  // `parent.id` is empty for all of a model's.
  absl::StatusOr<v1::ListEvaluationsResponse> ListEvaluations(
      const ChildName& parent, int page_size,
      const std::string& page_token) const;

  // The newest evaluation that measured a map; nullopt when there is none.
  absl::StatusOr<std::optional<v1::Evaluation>> NewestEvaluation(
      const ChildName& map) const {
    return evaluations_.Newest(map);
  }

  // Identifies the state of a model's evaluations: another number after every
  // change of them, and never the same again while the process lives.
  uint64_t EvaluationState(const std::string& model) const;

  // Policies by name; they belong to no model.
  PolicyTable& policies() { return *policies_; }

  v1::CacheStatistics bit_map_statistics() const {
    return bit_maps_->statistics();
  }

 private:
  struct ModelEntry {
    v1::Model model;
    // Calibration id by its header's key, which sorts newest first.
    std::map<std::string, std::string> by_age;
    std::map<std::string, std::string> key_of;  // header key by id
    uint64_t evaluation_state = 0;
  };

  Registry(Store* store, std::function<absl::Time()> clock);

  absl::Status Load();
  absl::Status CheckName(const std::string& model, v1::Calibration* calibration,
                         std::string* id) const;
  absl::Time NextCreateTime(const std::string& model) const;
  absl::StatusOr<ModelEntry> FindModel(const std::string& model) const;
  absl::Status RemoveCalibrationRows(const ChildName& name, ModelEntry* entry,
                                     std::vector<Mutation>* mutations) const;
  absl::Status RemoveEvaluations(const ChildName& calibration,
                                 const std::vector<std::string>& maps,
                                 bool force,
                                 std::vector<Mutation>* mutations) const;
  absl::StatusOr<v1::BitMap> FindMap(const ChildName& map,
                                     const char* field) const;
  absl::StatusOr<absl::Time> NextEvaluationTime(const ChildName& map,
                                                const ChildName& uniform) const;
  // Releases a map that no evaluation but `gone` measured.
  absl::Status ReleaseUnlessMeasured(const ChildName& map,
                                     const v1::Evaluation& gone,
                                     BitMapTable::Change* change);
  absl::Status Write(const BitMapTable::Change& change, Durability durability);
  void EvaluationsChanged(const std::string& model);
  void Notify(const std::string& model) const;

  Store* const store_;
  const std::function<absl::Time()> clock_;
  const EvaluationTable evaluations_;
  std::unique_ptr<BitMapTable> bit_maps_;
  std::unique_ptr<PolicyTable> policies_;
  std::function<void(const std::string& model)> listener_;
  std::mutex write_mutex_;  // held over read-modify-write; before index_mutex_
  mutable std::shared_mutex index_mutex_;
  std::map<std::string, ModelEntry> models_;  // by id, guarded by index_mutex_
  uint64_t evaluation_states_ = 0;            // guarded by index_mutex_
  LruCache<v1::Calibration> parsed_;
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_REGISTRY_H_
