#include "clients/cpp/disk_copy.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "clients/cpp/canonical_digest.h"
#include "clients/cpp/durable_file.h"
#include "clients/cpp/file_lock.h"
#include "clients/cpp/resource_names.h"

namespace ratequant::client {
namespace {

// As large as a message may be (grpc_connection.cc).
constexpr size_t kMaxFileBytes = 64 << 20;

constexpr absl::Duration kLockTimeout = absl::Seconds(5);

std::string QueryDigest(v1::GetBitMapRequest request) {
  request.clear_known_etag();
  return CanonicalDigest(request);
}

}  // namespace

absl::StatusOr<BitMapFile> LoadBitMapFile(const std::string& path) {
  const absl::StatusOr<std::string> bytes = ReadFile(path, kMaxFileBytes);
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<BitMapFile> file = DecodeBitMapFile(*bytes);
  if (file.ok()) return file;
  return absl::Status(file.status().code(),
                      absl::StrCat(path, ": ", file.status().message()));
}

DiskCopy::DiskCopy(absl::string_view folder,
                   const v1::GetBitMapRequest& request, Environment environment)
    : query_digest_(QueryDigest(request)),
      path_(absl::StrCat(folder, "/", ModelIdOf(request.model()), ".",
                         absl::string_view(query_digest_).substr(0, 16),
                         ".bitmap")),
      environment_(std::move(environment)) {}

absl::StatusOr<SavedBitMap> DiskCopy::Load() const {
  absl::StatusOr<BitMapFile> file = LoadBitMapFile(path_);
  if (!file.ok()) return file.status();
  if (file->query_digest == query_digest_) return std::move(file->saved);
  return absl::FailedPreconditionError(
      absl::StrCat(path_, ": it answers another query (", file->query_digest,
                   ", not ", query_digest_, ")"));
}

bool DiskCopy::Supersedes(const SavedBitMap& saved) const {
  const absl::StatusOr<SavedBitMap> kept = Load();
  // What came from the future came from a clock that was wrong.
  return !kept.ok() || kept->received <= saved.received ||
         kept->received > environment_.now();
}

absl::Status DiskCopy::Store(const SavedBitMap& saved) const {
  std::error_code error;
  std::filesystem::create_directories(
      std::filesystem::path(path_).parent_path(), error);
  if (error) {
    return absl::ErrnoToStatus(error.value(),
                               absl::StrCat("making the folder of ", path_));
  }
  const absl::StatusOr<FileLock> lock = FileLock::Acquire(
      absl::StrCat(path_, ".lock"), kLockTimeout, environment_);
  if (!lock.ok()) return lock.status();
  if (!Supersedes(saved)) return absl::OkStatus();
  return ReplaceFile(
      path_, EncodeBitMapFile({.query_digest = query_digest_, .saved = saved}));
}

}  // namespace ratequant::client
