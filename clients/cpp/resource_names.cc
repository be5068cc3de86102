#include "clients/cpp/resource_names.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace ratequant::client {

std::string ModelName(absl::string_view model) {
  absl::ConsumePrefix(&model, "models/");
  return absl::StrCat("models/", absl::StrReplaceAll(model, {{"/", "--"}}));
}

std::string CalibrationName(absl::string_view model,
                            absl::string_view calibration) {
  if (absl::StartsWith(calibration, "models/")) return std::string(calibration);
  return absl::StrCat(ModelName(model), "/calibrations/", calibration);
}

std::string PolicyName(absl::string_view policy) {
  absl::ConsumePrefix(&policy, "policies/");
  return absl::StrCat("policies/", policy);
}

std::string ResourceId(absl::string_view name) {
  size_t slash = name.rfind('/');
  if (slash != absl::string_view::npos) name.remove_prefix(slash + 1);
  return std::string(name);
}

std::string ModelIdOf(absl::string_view name) {
  if (!absl::ConsumePrefix(&name, "models/")) return "";
  return std::string(name.substr(0, name.find('/')));
}

}  // namespace ratequant::client
