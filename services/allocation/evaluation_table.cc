#include "services/allocation/evaluation_table.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/allocation/page.h"
#include "services/allocation/timestamp.h"
#include "services/common/status.h"

namespace ratequant::allocation {
namespace {

absl::Status Corrupt(absl::string_view key) {
  return MakeError(absl::StatusCode::kDataLoss, "STORE_CORRUPT",
                   absl::StrCat("stored data is damaged: evaluations ", key));
}

// The keys of an evaluation's rows: first that of its data.
std::vector<std::string> Keys(const v1::Evaluation& evaluation) {
  const absl::StatusOr<EvaluationName> key =
      ParseEvaluationName(evaluation.name(), "name");
  const absl::StatusOr<ChildName> uniform =
      ParseBitMapName(evaluation.uniform_bit_map(), "uniform_bit_map");
  std::vector<std::string> keys = {EvaluationDataKey(*key)};
  for (const std::string& measured :
       std::set<std::string>{key->map.id, uniform->id}) {
    keys.push_back(
        MeasuredKey(*key, measured, GetTime(evaluation.create_time())));
  }
  return keys;
}

}  // namespace

absl::StatusOr<std::optional<v1::Evaluation>> EvaluationTable::Get(
    const EvaluationName& key) const {
  const std::string data_key = EvaluationDataKey(key);
  absl::StatusOr<std::optional<std::string>> bytes =
      store_->Get(Table::kEvaluations, data_key);
  if (!bytes.ok()) return bytes.status();
  if (!bytes->has_value()) return std::optional<v1::Evaluation>();
  v1::Evaluation evaluation;
  if (!evaluation.ParseFromString(**bytes)) return Corrupt(data_key);
  return std::optional<v1::Evaluation>(std::move(evaluation));
}

absl::StatusOr<std::optional<v1::Evaluation>> EvaluationTable::Newest(
    const ChildName& map) const {
  std::string newest;
  absl::Status scanned =
      store_->Scan(Table::kEvaluations, MeasuredPrefix(map), "",
                   [&newest](absl::string_view key, absl::string_view) {
                     newest = std::string(key);
                     return false;
                   });
  if (!scanned.ok()) return scanned;
  if (newest.empty()) return std::optional<v1::Evaluation>();
  EvaluationName key;
  if (!ParseMeasuredKey(newest, &key)) return Corrupt(newest);
  return Get(key);
}

absl::StatusOr<bool> EvaluationTable::AnyBut(const ChildName& map,
                                             const v1::Evaluation& gone) const {
  const std::vector<std::string> keys = Keys(gone);
  bool any = false;
  absl::Status scanned = store_->Scan(
      Table::kEvaluations, MeasuredPrefix(map), "",
      [&](absl::string_view key, absl::string_view) {
        any = std::find(keys.begin(), keys.end(), key) == keys.end();
        return !any;
      });
  if (!scanned.ok()) return scanned;
  return any;
}

absl::StatusOr<std::vector<v1::Evaluation>> EvaluationTable::All(
    const ChildName& map) const {
  std::vector<v1::Evaluation> all;
  absl::Status bad = absl::OkStatus();
  absl::Status scanned =
      store_->Scan(Table::kEvaluations, EvaluationPrefix(map), "",
                   [&](absl::string_view key, absl::string_view value) {
                     if (!all.emplace_back().ParseFromArray(
                             value.data(), static_cast<int>(value.size()))) {
                       bad = Corrupt(key);
                     }
                     return bad.ok();
                   });
  if (!scanned.ok()) return scanned;
  if (!bad.ok()) return bad;
  return all;
}

absl::StatusOr<v1::ListEvaluationsResponse> EvaluationTable::List(
    const ChildName& parent, int page_size,
    const std::string& page_token) const {
  const std::string prefix = EvaluationPrefix(parent);
  return ListRows<v1::ListEvaluationsResponse>(
      *store_, Table::kEvaluations, prefix,
      absl::StrCat("ListEvaluations ", prefix), page_size, page_token,
      [](v1::ListEvaluationsResponse* page) {
        return page->mutable_evaluations();
      },
      [](const v1::Evaluation&) { return true; });
}

void EvaluationTable::Add(const v1::Evaluation& evaluation,
                          std::vector<Mutation>* mutations) {
  const std::vector<std::string> keys = Keys(evaluation);
  for (const std::string& key : keys) {
    mutations->push_back(
        {Table::kEvaluations, key,
         key == keys.front() ? evaluation.SerializeAsString() : ""});
  }
}

void EvaluationTable::Remove(const v1::Evaluation& evaluation,
                             std::vector<Mutation>* mutations) {
  for (const std::string& key : Keys(evaluation)) {
    mutations->push_back({Table::kEvaluations, key, std::nullopt});
  }
}

}  // namespace ratequant::allocation
