#include "services/calibration/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/calibration/calibration_builder.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"

namespace ratequant::calibration {
namespace {

namespace fs = std::filesystem;

constexpr char kExtension[] = ".calibration";
constexpr char kTemporary[] = ".tmp";
constexpr char kRefused[] = "refused";

absl::Status Unusable(const std::string& folder, absl::string_view why) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "SPOOL_UNUSABLE",
      absl::StrCat("cannot use the spool folder '", folder, "': ", why),
      {{"spool_dir", folder}});
}

absl::Status Unwritable(const std::string& path, int error) {
  return MakeError(absl::StatusCode::kResourceExhausted, "SPOOL_UNWRITABLE",
                   absl::StrCat("cannot keep the calibration in ", path, ": ",
                                strerror(error)));
}

// Writes and syncs; answers 0 or errno.
int WriteAll(int fd, const std::string& bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = write(fd, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    done += n;
  }
  return fsync(fd) == 0 ? 0 : errno;
}

int WriteFile(const std::string& path, const std::string& bytes) {
  const int fd =
      open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return errno;
  const int written = WriteAll(fd, bytes);
  // close() reports what a network file system couldn't write.
  const int closed = close(fd) == 0 ? 0 : errno;
  return written != 0 ? written : closed;
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, path);
  std::string bytes;
  char buffer[64 * 1024];
  ssize_t n;
  while ((n = read(fd, buffer, sizeof(buffer))) != 0) {
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;
    bytes.append(buffer, n);
  }
  const int error = errno;
  close(fd);
  if (n < 0) return absl::ErrnoToStatus(error, path);
  return bytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Spool>> Spool::Open(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (folder.empty() || error) {
    return Unusable(folder, folder.empty() ? "no name" : error.message());
  }
  const std::string lock = absl::StrCat(folder, "/.lock");
  const int fd = open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return Unusable(folder, strerror(errno));
  std::unique_ptr<Spool> spool(new Spool(folder, fd));
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "SPOOL_IN_USE",
                     absl::StrCat("the spool folder '", folder,
                                  "' is in use by another worker"),
                     {{"spool_dir", folder}});
  }
  absl::Status removed = spool->RemoveTemporaries();
  if (!removed.ok()) return Unusable(folder, removed.message());
  return spool;
}

Spool::Spool(std::string folder, int lock_fd)
    : folder_(std::move(folder)), lock_fd_(lock_fd) {}

Spool::~Spool() { close(lock_fd_); }

std::string Spool::PathOf(const std::string& file) const {
  return absl::StrCat(folder_, "/", file);
}

absl::Status Spool::Put(const v1::Calibration& calibration) {
  auto name = ParseCalibrationName(calibration.name(), "name");
  if (!name.ok()) return name.status();
  const std::string path =
      PathOf(absl::StrCat(name->model, "--", name->id, kExtension));
  const std::string temporary = path + kTemporary;
  int error = WriteFile(temporary, calibration.SerializeAsString());
  if (error == 0 && rename(temporary.c_str(), path.c_str()) != 0) error = errno;
  if (error != 0) {
    unlink(temporary.c_str());
    return Unwritable(path, error);
  }
  return SyncFolder();
}

// Makes a rename durable.
absl::Status Spool::SyncFolder() const {
  const int fd = open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int error = fd < 0 ? errno : 0;
  if (error == 0 && fsync(fd) != 0) error = errno;
  if (fd >= 0) close(fd);
  return error == 0 ? absl::OkStatus() : Unwritable(folder_, error);
}

absl::StatusOr<std::vector<std::string>> Spool::List() const {
  std::vector<std::string> files;
  std::error_code error;
  for (fs::directory_iterator it(folder_, error), end; !error && it != end;
       it.increment(error)) {
    std::string name = it->path().filename().string();
    if (absl::EndsWith(name, kExtension)) files.push_back(std::move(name));
  }
  if (error) return Unusable(folder_, error.message());
  std::sort(files.begin(), files.end());
  return files;
}

absl::Status Spool::RemoveTemporaries() {
  std::vector<fs::path> leftovers;
  std::error_code error;
  for (fs::directory_iterator it(folder_, error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().extension() == kTemporary) leftovers.push_back(it->path());
  }
  for (const fs::path& path : leftovers) {
    if (!error) fs::remove(path, error);
  }
  return error ? absl::UnavailableError(error.message()) : absl::OkStatus();
}

absl::StatusOr<v1::Calibration> Spool::Read(const std::string& file) const {
  auto bytes = ReadFile(PathOf(file));
  if (!bytes.ok()) return bytes.status();
  v1::Calibration calibration;
  const absl::Status damaged =
      absl::DataLossError(absl::StrCat("spool file ", file, " is damaged"));
  if (!calibration.ParseFromString(*bytes)) return damaged;
  auto name = ParseCalibrationName(calibration.name(), "name");
  if (!name.ok()) return damaged;
  auto digest = CalibrationDigest(calibration, name->model);
  if (!digest.ok() || *digest != name->id) return damaged;
  return calibration;
}

absl::Status Spool::Remove(const std::string& file) {
  if (unlink(PathOf(file).c_str()) == 0 || errno == ENOENT) {
    return absl::OkStatus();
  }
  return absl::ErrnoToStatus(errno, PathOf(file));
}

absl::Status Spool::SetAside(const std::string& file) {
  const std::string folder = PathOf(kRefused);
  if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, folder);
  }
  const std::string target = absl::StrCat(folder, "/", file);
  if (rename(PathOf(file).c_str(), target.c_str()) == 0) {
    return absl::OkStatus();
  }
  return absl::ErrnoToStatus(errno, target);
}

void Spool::AddSamples(MetricSamples* out) const {
  int waiting = 0, refused = 0;
  double oldest = 0;
  std::error_code error;
  for (fs::directory_iterator it(folder_, error), end; !error && it != end;
       it.increment(error)) {
    struct stat file = {};
    if (it->path().extension() != kExtension ||
        stat(it->path().c_str(), &file) != 0) {
      continue;
    }
    const double time = static_cast<double>(file.st_mtime);
    oldest = ++waiting == 1 ? time : std::min(oldest, time);
  }
  for (fs::directory_iterator it(PathOf(kRefused), error), end;
       !error && it != end; it.increment(error)) {
    ++refused;
  }
  out->Gauge("ratequant_spool_waiting",
             "Calibrations that wait in the spool for the allocator", waiting);
  out->Gauge("ratequant_spool_oldest_timestamp_seconds",
             "Since when the oldest of them waits, seconds since 1970; 0: none",
             oldest);
  out->Gauge("ratequant_spool_refused",
             "Calibrations that were set aside because the allocator refuses "
             "them",
             refused);
  SampleDisk("spool", folder_, out);
}

}  // namespace ratequant::calibration
