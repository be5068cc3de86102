#ifndef RATEQUANT_SERVICES_ALLOCATION_STORE_KEYS_H_
#define RATEQUANT_SERVICES_ALLOCATION_STORE_KEYS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "services/allocation/store/store.h"
#include "services/common/resource_names.h"

namespace ratequant::allocation {

// Keys of the store's tables. Persisted: do not change.
//   calibrations   d/{model}/{id}                       the calibration
//                  h/{model}/{age}/{id}                 its header
//                  p/{policy}                           a named policy
//   models         {model}                              the model
//   bit_maps       {model}/{calibration}/{query}        a map solved from it
//   bit_map_index  r/{model}/{calibration}/{query}      that row's BitMapRow
//                  n/{model}/{map}/{calibration}/{query}   rows of a map
//                  o/{sequence}                         BitMapRows that may be
//                                                       dropped, oldest first
//   evaluations    d/{model}/{map}/{id}                 the evaluation
//                  m/{model}/{measured}/{age}/{map}/{id}   "": evaluations by
//                       every map they measured, their own and the uniform one
// {age} counts down with time, in digits that sort like the number: newest
// first.

// "d/{model}/{id}", of a calibration.
std::string CalibrationKey(const ChildName& calibration);
// Prefix of all headers, and of a model's.
inline constexpr char kHeaderPrefix[] = "h/";
std::string HeaderPrefix(absl::string_view model);
std::string HeaderKey(const ChildName& calibration, absl::Time created);

// Prefix of all named policies, and one's key.
inline constexpr char kPolicyPrefix[] = "p/";
std::string PolicyKey(absl::string_view policy);

// Prefix of a calibration's rows in bit_maps.
std::string BitMapPrefix(const ChildName& calibration);

// What the index says about a row of bit_maps.
struct BitMapRow {
  std::string key;  // in bit_maps
  std::string map;  // id of the map
  // Its place in the order of dropping, from 1; 0: kept for its evaluations.
  uint64_t sequence = 0;
  uint64_t bytes = 0;  // of key and value
};
inline constexpr char kRowPrefix[] = "r/";
inline constexpr char kOrderPrefix[] = "o/";
std::string RowKey(absl::string_view bit_map_key);
std::string OrderKey(uint64_t sequence);
// Prefix of the rows of a map, and a row's key, which ends in the row's key in
// bit_maps without its model.
std::string MapPrefix(const ChildName& map);
std::string MapKey(absl::string_view model, const BitMapRow& row);
// The value of a RowKey and of an OrderKey; false when `value` isn't one.
std::string EncodeBitMapRow(const BitMapRow& row);
bool DecodeBitMapRow(absl::string_view value, BitMapRow* row);
// Adds the changes that put a row into the index, or take it out.
void AddIndexRows(absl::string_view model, const BitMapRow& row,
                  std::vector<Mutation>* mutations);
void RemoveIndexRows(absl::string_view model, const BitMapRow& row,
                     std::vector<Mutation>* mutations);

std::string EvaluationDataKey(const EvaluationName& evaluation);
// Prefix of a map's evaluations; with `map.id` empty of all the model's.
std::string EvaluationPrefix(const ChildName& map);
// Prefix of the evaluations that measured a map, newest first, and a row's key.
std::string MeasuredPrefix(const ChildName& measured);
std::string MeasuredKey(const EvaluationName& evaluation,
                        const std::string& measured, absl::Time created);
// False when `key` isn't a MeasuredKey.
bool ParseMeasuredKey(absl::string_view key, EvaluationName* out);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_STORE_KEYS_H_
