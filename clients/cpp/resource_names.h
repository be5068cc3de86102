#ifndef RATEQUANT_CLIENTS_CPP_RESOURCE_NAMES_H_
#define RATEQUANT_CLIENTS_CPP_RESOURCE_NAMES_H_

#include <string>

#include "absl/strings/string_view.h"

namespace ratequant::client {

// `models/{model}` of a model id, a hub name ("Qwen/Qwen3-8B" becomes
// "models/Qwen--Qwen3-8B") or a resource name (left as it is). The server
// checks the id.
std::string ModelName(absl::string_view model);

// `models/{model}/calibrations/{calibration}`; `calibration` is an id,
// "latest", or a resource name (left as it is).
std::string CalibrationName(absl::string_view model,
                            absl::string_view calibration);

// `policies/{policy}` of an id or a resource name.
std::string PolicyName(absl::string_view policy);

// The last part of a resource name: "abc" of "models/m/bitMaps/abc".
std::string ResourceId(absl::string_view name);

// The model id of a resource name, "m" of "models/m/calibrations/abc"; empty
// when `name` doesn't begin with "models/".
std::string ModelIdOf(absl::string_view name);

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_RESOURCE_NAMES_H_
