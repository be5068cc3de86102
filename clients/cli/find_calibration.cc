#include "clients/cli/find_calibration.h"

#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cli/exit_code.h"
#include "clients/cpp/resource_names.h"

namespace ratequant::cli {
namespace {

constexpr size_t kIdDigits = 64;
constexpr size_t kMinPrefix = 4;

}  // namespace

absl::StatusOr<std::string> FindCalibration(client::Client& client,
                                            const std::string& model,
                                            const std::string& text) {
  if (absl::StartsWith(text, "models/")) return text;
  if (model.empty()) {
    return UsageError(absl::StrCat(
        "which model's calibration '", text,
        "'? Give --model, or the whole name models/MODEL/calibrations/ID"));
  }
  if (text == "latest" || text.size() >= kIdDigits) {
    return client::CalibrationName(model, text);
  }
  if (text.size() < kMinPrefix) {
    return UsageError(absl::StrCat("'", text, "' is too short: give at least ",
                                   kMinPrefix, " digits of the id"));
  }
  auto calibrations = client.ListCalibrations(model);
  if (!calibrations.ok()) return calibrations.status();
  std::vector<std::string> matches;
  for (const v1::Calibration& calibration : *calibrations) {
    if (absl::StartsWith(client::ResourceId(calibration.name()), text)) {
      matches.push_back(calibration.name());
    }
  }
  if (matches.empty()) {
    return absl::NotFoundError(absl::StrCat(
        client::ModelName(model),
        " has no calibration whose id "
        "begins with '",
        text, "'; see: ratequant calibrations list --model ", model));
  }
  if (matches.size() > 1) {
    return UsageError(absl::StrCat("'", text, "' could be any of:\n  ",
                                   absl::StrJoin(matches, "\n  ")));
  }
  return matches[0];
}

}  // namespace ratequant::cli
