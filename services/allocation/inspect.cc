#include "services/allocation/inspect.h"

#include <cstdint>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "ratequant/v1/allocation_service.pb.h"
#include "ratequant/v1/bit_map.pb.h"
#include "ratequant/v1/calibration.pb.h"
#include "ratequant/v1/evaluation.pb.h"
#include "ratequant/v1/model.pb.h"
#include "services/allocation/store/keys.h"

namespace ratequant::allocation {
namespace {

template <typename Message>
bool Parses(absl::string_view value) {
  Message message;
  return message.ParseFromArray(value.data(), static_cast<int>(value.size())) &&
         !message.name().empty();
}

bool IsSound(Table table, absl::string_view key, absl::string_view value) {
  BitMapRow row;
  switch (table) {
    case Table::kCalibrations:
      return absl::StartsWith(key, kPolicyPrefix)
                 ? Parses<v1::NamedPolicy>(value)
                 : Parses<v1::Calibration>(value);
    case Table::kModels:
      return Parses<v1::Model>(value);
    case Table::kBitMaps:
      return Parses<v1::BitMap>(value);
    case Table::kEvaluations:
      return absl::StartsWith(key, "d/") ? Parses<v1::Evaluation>(value)
                                         : value.empty();
    case Table::kBitMapIndex:
      return absl::StartsWith(key, "n/") ? value.empty()
                                         : DecodeBitMapRow(value, &row);
  }
  return false;
}

absl::Status ListModels(const Store& store, std::string* text) {
  return store.Scan(Table::kModels, "", "",
                    [text](absl::string_view key, absl::string_view value) {
                      v1::Model model;
                      if (model.ParseFromArray(
                              value.data(), static_cast<int>(value.size()))) {
                        absl::StrAppendFormat(
                            text, "%s  %d calibrations, newest %s\n", key,
                            model.calibration_count(),
                            model.latest_calibration());
                      }
                      return true;
                    });
}

}  // namespace

absl::StatusOr<Inspection> Inspect(const Store& store) {
  Inspection found;
  for (int i = 0; i < kTables; ++i) {
    const Table table = static_cast<Table>(i);
    int64_t rows = 0, bytes = 0;
    absl::Status scanned = store.Scan(
        table, "", "", [&](absl::string_view key, absl::string_view value) {
          ++rows;
          bytes += static_cast<int64_t>(key.size() + value.size());
          if (!IsSound(table, key, value)) {
            found.damaged.push_back(absl::StrCat(TableName(table), " ", key));
          }
          return true;
        });
    if (!scanned.ok()) return scanned;
    absl::StrAppendFormat(&found.text, "%-14s %9d rows %13d bytes\n",
                          TableName(table), rows, bytes);
  }
  absl::Status listed = ListModels(store, &found.text);
  if (!listed.ok()) return listed;
  return found;
}

}  // namespace ratequant::allocation
