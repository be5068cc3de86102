#ifndef RATEQUANT_SERVICES_ALLOCATION_EVALUATION_TABLE_H_
#define RATEQUANT_SERVICES_ALLOCATION_EVALUATION_TABLE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ratequant/v1/allocation_service.pb.h"
#include "ratequant/v1/evaluation.pb.h"
#include "services/allocation/store/keys.h"
#include "services/allocation/store/store.h"
#include "services/common/resource_names.h"

namespace ratequant::allocation {

// The evaluations in a store, by the maps they measured. Thread-safe. Errors
// are the store's; DATA_LOSS (STORE_CORRUPT) names the row.
class EvaluationTable {
 public:
  // `store` must outlive it.
  explicit EvaluationTable(Store* store) : store_(store) {}

  absl::StatusOr<std::optional<v1::Evaluation>> Get(
      const EvaluationName& key) const;

  // The newest one that measured a map: recorded for it, or for another that
  // was compared with it.
  absl::StatusOr<std::optional<v1::Evaluation>> Newest(
      const ChildName& map) const;

  // Whether another one than `gone` measured a map.
  absl::StatusOr<bool> AnyBut(const ChildName& map,
                              const v1::Evaluation& gone) const;

  // All that were recorded for a map.
  absl::StatusOr<std::vector<v1::Evaluation>> All(const ChildName& map) const;

  // A page of those of a map, or with `parent.id` empty of a model's, in the
  // order of their names.
  absl::StatusOr<v1::ListEvaluationsResponse> List(
      const ChildName& parent, int page_size,
      const std::string& page_token) const;

  // Adds the changes that store a complete evaluation, or remove it.
  static void Add(const v1::Evaluation& evaluation,
                  std::vector<Mutation>* mutations);
  static void Remove(const v1::Evaluation& evaluation,
                     std::vector<Mutation>* mutations);

 private:
  Store* const store_;
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_EVALUATION_TABLE_H_
