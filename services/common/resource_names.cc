#include "services/common/resource_names.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/common/status.h"

namespace ratequant {
namespace {

constexpr size_t kMaxModelIdLength = 128;
constexpr size_t kMaxQuotedLength = 200;

absl::Status BadName(absl::string_view name, absl::string_view field,
                     absl::string_view expected) {
  if (name.empty()) {
    return FieldError("INVALID_NAME", field,
                      absl::StrCat("is empty; expected ", expected));
  }
  return FieldError("INVALID_NAME", field,
                    absl::StrCat("'", name.substr(0, kMaxQuotedLength),
                                 "' isn't ", expected));
}

// The id in "{collection}/{id}" when people may choose it; else empty.
absl::string_view ChosenId(absl::string_view name,
                           absl::string_view collection) {
  const std::vector<absl::string_view> parts = absl::StrSplit(name, '/');
  return parts.size() == 2 && parts[0] == collection && IsModelId(parts[1])
             ? parts[1]
             : absl::string_view();
}

// Splits "models/{model}/{collection}/{id}"; only the model id is checked.
bool SplitChild(absl::string_view name, absl::string_view collection,
                ChildName* out) {
  const std::vector<absl::string_view> parts = absl::StrSplit(name, '/');
  if (parts.size() != 4 || parts[0] != "models" || parts[2] != collection ||
      !IsModelId(parts[1])) {
    return false;
  }
  out->model = std::string(parts[1]);
  out->id = std::string(parts[3]);
  return true;
}

}  // namespace

bool IsModelId(absl::string_view id) {
  if (id.empty() || id.size() > kMaxModelIdLength) return false;
  if (!absl::ascii_isalnum(static_cast<unsigned char>(id[0]))) return false;
  return std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
  });
}

bool IsDigest(absl::string_view id) {
  return id.size() == 64 && std::all_of(id.begin(), id.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

std::string ModelName(absl::string_view model) {
  return absl::StrCat("models/", model);
}

std::string CalibrationName(absl::string_view model, absl::string_view id) {
  return absl::StrCat("models/", model, "/calibrations/", id);
}

std::string BitMapName(absl::string_view model, absl::string_view id) {
  return absl::StrCat("models/", model, "/bitMaps/", id);
}

std::string PolicyName(absl::string_view policy) {
  return absl::StrCat("policies/", policy);
}

std::string EvaluationNameText(const EvaluationName& evaluation) {
  return absl::StrCat(BitMapName(evaluation.map.model, evaluation.map.id),
                      "/evaluations/", evaluation.id);
}

absl::StatusOr<std::string> ParseModelName(absl::string_view name,
                                           absl::string_view field) {
  const absl::string_view id = ChosenId(name, "models");
  if (!id.empty()) return std::string(id);
  return BadName(name, field,
                 "models/{model} with a model id of 1 to 128 letters, digits, "
                 "'.', '_' and '-', the first a letter or digit");
}

absl::StatusOr<std::string> ParsePolicyName(absl::string_view name,
                                            absl::string_view field) {
  const absl::string_view id = ChosenId(name, "policies");
  if (!id.empty()) return std::string(id);
  return BadName(name, field,
                 "policies/{policy} with an id of 1 to 128 letters, digits, "
                 "'.', '_' and '-', the first a letter or digit");
}

absl::StatusOr<ChildName> ParseCalibrationName(absl::string_view name,
                                               absl::string_view field) {
  ChildName child;
  if (SplitChild(name, "calibrations", &child) &&
      (IsDigest(child.id) || child.id == kLatestCalibration)) {
    return child;
  }
  return BadName(name, field,
                 "models/{model}/calibrations/{calibration} with 64 lower-case "
                 "hexadecimal digits or 'latest'");
}

absl::StatusOr<ChildName> ParseBitMapName(absl::string_view name,
                                          absl::string_view field) {
  ChildName child;
  if (SplitChild(name, "bitMaps", &child) && IsDigest(child.id)) return child;
  return BadName(name, field,
                 "models/{model}/bitMaps/{bit_map} with 64 lower-case "
                 "hexadecimal digits");
}

absl::StatusOr<EvaluationName> ParseEvaluationName(absl::string_view name,
                                                   absl::string_view field) {
  constexpr absl::string_view kCollection = "/evaluations/";
  const size_t end = name.find(kCollection);
  if (end != absl::string_view::npos) {
    const auto map = ParseBitMapName(name.substr(0, end), field);
    const absl::string_view id = name.substr(end + kCollection.size());
    if (map.ok() && IsDigest(id)) return EvaluationName{*map, std::string(id)};
  }
  return BadName(name, field,
                 "models/{model}/bitMaps/{bit_map}/evaluations/{evaluation} "
                 "with ids of 64 lower-case hexadecimal digits");
}

}  // namespace ratequant
