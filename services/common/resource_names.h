#ifndef RATEQUANT_SERVICES_COMMON_RESOURCE_NAMES_H_
#define RATEQUANT_SERVICES_COMMON_RESOURCE_NAMES_H_

// Resource names: `models/{model}`, `models/{model}/calibrations/{id}`,
// `models/{model}/bitMaps/{id}`,
// `models/{model}/bitMaps/{id}/evaluations/{id}`, `policies/{policy}`. All
// functions are thread-safe.

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ratequant {

// The calibration id that means "the newest one".
inline constexpr char kLatestCalibration[] = "latest";

// A name of a resource inside a model.
struct ChildName {
  std::string model;  // model id, without "models/"
  std::string id;
};

// A name of an evaluation: the map it was recorded for, and its own id.
struct EvaluationName {
  ChildName map;
  std::string id;
};

// True for `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`, the ids that people choose: of
// models and policies.
bool IsModelId(absl::string_view id);

// True for 64 lower-case hexadecimal digits: the id of a calibration or a map.
bool IsDigest(absl::string_view id);

// "models/{model}".
std::string ModelName(absl::string_view model);
// "models/{model}/calibrations/{id}".
std::string CalibrationName(absl::string_view model, absl::string_view id);
// "models/{model}/bitMaps/{id}".
std::string BitMapName(absl::string_view model, absl::string_view id);

// "models/{model}/bitMaps/{map}/evaluations/{id}".
std::string EvaluationNameText(const EvaluationName& evaluation);

// "policies/{policy}".
std::string PolicyName(absl::string_view policy);

// Parse a name; `field` is the request's field it came in, for the error:
// INVALID_ARGUMENT INVALID_NAME with a violation of `field`. ParseModelName
// answers with the model id, ParsePolicyName with the policy's.
// ParseCalibrationName takes a digest or "latest".
absl::StatusOr<std::string> ParseModelName(absl::string_view name,
                                           absl::string_view field);
absl::StatusOr<ChildName> ParseCalibrationName(absl::string_view name,
                                               absl::string_view field);
absl::StatusOr<ChildName> ParseBitMapName(absl::string_view name,
                                          absl::string_view field);
absl::StatusOr<EvaluationName> ParseEvaluationName(absl::string_view name,
                                                   absl::string_view field);
absl::StatusOr<std::string> ParsePolicyName(absl::string_view name,
                                            absl::string_view field);

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_RESOURCE_NAMES_H_
