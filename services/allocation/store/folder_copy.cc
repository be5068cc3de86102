#include "services/allocation/store/folder_copy.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace ratequant::allocation {
namespace {

namespace fs = std::filesystem;

std::error_code Sync(const fs::path& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return {errno, std::generic_category()};
  const int failed = fsync(file);
  const std::error_code error(failed == 0 ? 0 : errno, std::generic_category());
  close(file);
  return error;
}

std::error_code Copy(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::create_directories(to, error);
  for (fs::directory_iterator file(from, error), end; !error && file != end;
       file.increment(error)) {
    const fs::path copy = to / file->path().filename();
    fs::copy_file(file->path(), copy, error);
    if (!error) error = Sync(copy);
  }
  if (!error) error = Sync(to);
  return error;
}

}  // namespace

absl::Status CopyFolder(const std::string& from, const std::string& to) {
  fs::path target = fs::absolute(to).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();  // "to/"
  // Copied beside its place and moved there whole.
  const std::string copy = absl::StrCat(target.string(), ".copy.", getpid());
  std::error_code error = Copy(from, copy), ignored;
  if (!error) fs::rename(copy, target, error);
  if (!error) error = Sync(target.parent_path());
  if (!error) return absl::OkStatus();
  fs::remove_all(copy, ignored);
  return absl::UnavailableError(
      absl::StrCat("copying ", from, " to ", to, ": ", error.message()));
}

}  // namespace ratequant::allocation
