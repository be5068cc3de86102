#include "services/allocation/store/keys.h"

#include <limits>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace ratequant::allocation {
namespace {

std::string Age(absl::Time created) {
  return absl::StrFormat("%020d", std::numeric_limits<int64_t>::max() -
                                      absl::ToUnixMicros(created));
}

std::string MapsPrefix(absl::string_view kind, const ChildName& map) {
  return absl::StrCat(kind, map.model, "/", map.id, "/");
}

}  // namespace

std::string CalibrationKey(const ChildName& calibration) {
  return absl::StrCat("d/", calibration.model, "/", calibration.id);
}

std::string HeaderPrefix(absl::string_view model) {
  return absl::StrCat(kHeaderPrefix, model, "/");
}

std::string HeaderKey(const ChildName& calibration, absl::Time created) {
  return absl::StrCat(HeaderPrefix(calibration.model), Age(created), "/",
                      calibration.id);
}

std::string PolicyKey(absl::string_view policy) {
  return absl::StrCat(kPolicyPrefix, policy);
}

std::string BitMapPrefix(const ChildName& calibration) {
  return MapsPrefix("", calibration);
}

std::string RowKey(absl::string_view bit_map_key) {
  return absl::StrCat(kRowPrefix, bit_map_key);
}

std::string OrderKey(uint64_t sequence) {
  return absl::StrFormat("%s%020d", kOrderPrefix, sequence);
}

std::string MapPrefix(const ChildName& map) { return MapsPrefix("n/", map); }

std::string MapKey(absl::string_view model, const BitMapRow& row) {
  // The row's key begins with "{model}/".
  return absl::StrCat(MapPrefix({std::string(model), row.map}),
                      row.key.substr(model.size() + 1));
}

std::string EncodeBitMapRow(const BitMapRow& row) {
  return absl::StrCat(row.sequence, " ", row.bytes, " ", row.map, " ", row.key);
}

bool DecodeBitMapRow(absl::string_view value, BitMapRow* row) {
  const std::vector<absl::string_view> parts = absl::StrSplit(value, ' ');
  if (parts.size() != 4 || !absl::SimpleAtoi(parts[0], &row->sequence) ||
      !absl::SimpleAtoi(parts[1], &row->bytes)) {
    return false;
  }
  row->map = std::string(parts[2]);
  row->key = std::string(parts[3]);
  return true;
}

void AddIndexRows(absl::string_view model, const BitMapRow& row,
                  std::vector<Mutation>* mutations) {
  const std::string value = EncodeBitMapRow(row);
  mutations->push_back({Table::kBitMapIndex, RowKey(row.key), value});
  mutations->push_back({Table::kBitMapIndex, MapKey(model, row), ""});
  if (row.sequence == 0) return;
  mutations->push_back({Table::kBitMapIndex, OrderKey(row.sequence), value});
}

void RemoveIndexRows(absl::string_view model, const BitMapRow& row,
                     std::vector<Mutation>* mutations) {
  for (const std::string& key :
       {RowKey(row.key), MapKey(model, row), OrderKey(row.sequence)}) {
    mutations->push_back({Table::kBitMapIndex, key, std::nullopt});
  }
}

std::string EvaluationDataKey(const EvaluationName& evaluation) {
  return absl::StrCat(EvaluationPrefix(evaluation.map), evaluation.id);
}

std::string EvaluationPrefix(const ChildName& map) {
  return map.id.empty() ? absl::StrCat("d/", map.model, "/")
                        : MapsPrefix("d/", map);
}

std::string MeasuredPrefix(const ChildName& measured) {
  return MapsPrefix("m/", measured);
}

std::string MeasuredKey(const EvaluationName& evaluation,
                        const std::string& measured, absl::Time created) {
  return absl::StrCat(MeasuredPrefix({evaluation.map.model, measured}),
                      Age(created), "/", evaluation.map.id, "/", evaluation.id);
}

bool ParseMeasuredKey(absl::string_view key, EvaluationName* out) {
  const std::vector<absl::string_view> parts = absl::StrSplit(key, '/');
  if (parts.size() != 6) return false;
  out->map = {std::string(parts[1]), std::string(parts[4])};
  out->id = std::string(parts[5]);
  return true;
}

}  // namespace ratequant::allocation
