#include "services/calibration/model_path.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"

namespace ratequant::calibration {
namespace {

namespace fs = std::filesystem;

// True when `path` is `folder` or below it. Both absolute and normalised.
bool IsWithin(const fs::path& path, const fs::path& folder) {
  auto part = path.begin();
  for (const fs::path& want : folder) {
    if (want.empty()) continue;  // a trailing slash
    if (part == path.end() || *part != want) return false;
    ++part;
  }
  return true;
}

absl::Status Outside(const std::string& path, const std::string& root) {
  return MakeError(absl::StatusCode::kPermissionDenied,
                   "MODEL_PATH_OUTSIDE_ROOT",
                   absl::StrCat("model path '", path,
                                "' is outside the worker's model root"),
                   {{"model_root", root}});
}

absl::Status NotFound(const std::string& path) {
  return MakeError(absl::StatusCode::kNotFound, "MODEL_PATH_NOT_FOUND",
                   absl::StrCat("there is no folder '", path,
                                "' in the worker's model root"));
}

}  // namespace

absl::StatusOr<ModelRoot> ModelRoot::Open(const std::string& root) {
  std::error_code error;
  const fs::path absolute = fs::absolute(root, error).lexically_normal();
  const fs::path real = error ? fs::path() : fs::canonical(absolute, error);
  if (root.empty() || error || !fs::is_directory(real, error)) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     "MODEL_ROOT_UNUSABLE",
                     absl::StrCat("model root '", root, "' is not a folder",
                                  error ? ": " + error.message() : ""));
  }
  return ModelRoot(absolute.string(), real.string());
}

ModelRoot::ModelRoot(std::string given, std::string real)
    : given_(std::move(given)), real_(std::move(real)) {}

absl::StatusOr<std::string> ModelRoot::Resolve(const std::string& path) const {
  // The system would cut a path at a NUL and look at another one.
  if (path.empty() || path.find('\0') != std::string::npos) {
    return FieldError("INVALID_ARGUMENT", "model_path",
                      path.empty() ? "is empty" : "contains a NUL");
  }
  const fs::path joined = fs::path(real_) / path;  // `path` if it is absolute
  std::error_code error;
  const fs::path real = fs::canonical(joined, error);
  if (!error) {
    if (!IsWithin(real, real_)) return Outside(path, real_);
    if (!fs::is_directory(real, error)) return NotFound(path);
    return real.string();
  }
  // Nothing there, or unreadable. Outside of the root that stays a secret.
  const fs::path lexical = joined.lexically_normal();
  if (!IsWithin(lexical, real_) && !IsWithin(lexical, given_)) {
    return Outside(path, real_);
  }
  if (error == std::errc::permission_denied) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "MODEL_UNREADABLE",
                     absl::StrCat("the worker may not read '", path, "'"));
  }
  return NotFound(path);
}

}  // namespace ratequant::calibration
