#ifndef RATEQUANT_CLIENTS_CPP_DISK_COPY_H_
#define RATEQUANT_CLIENTS_CPP_DISK_COPY_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "clients/cpp/bit_map_file.h"
#include "clients/cpp/retry.h"
#include "ratequant/v1/allocation_service.pb.h"

namespace ratequant::client {

// Reads one file of a folder, whatever query it answers: for tools. Errors of
// DiskCopy::Load.
absl::StatusOr<BitMapFile> LoadBitMapFile(const std::string& path);

// The last good answer to one query, kept on disk. All processes of a host that
// ask the same query may share a folder, and different queries may too: each
// has a file of its own, with a lock beside it. Thread-safe.
class DiskCopy {
 public:
  // The model's name in `request` is a resource name; `known_etag` plays no
  // part. `folder` is made by the first Store.
  DiskCopy(absl::string_view folder, const v1::GetBitMapRequest& request,
           Environment environment = Environment::Real());

  // {model}.{first 16 digits of the query's digest}.bitmap in the folder.
  const std::string& path() const { return path_; }

  // NOT_FOUND when nothing is kept; DATA_LOSS, FAILED_PRECONDITION or
  // PERMISSION_DENIED, naming the file, when what is there can't be used. Never
  // waits for a writer.
  absl::StatusOr<SavedBitMap> Load() const;

  // Keeps an answer, unless another process has kept a later one meanwhile:
  // whole and lasting when it returns OK. On an error what was kept stays:
  // UNAVAILABLE when another process holds the lock for seconds; what the
  // system says when the disk is full, read-only and so on.
  absl::Status Store(const SavedBitMap& saved) const;

 private:
  bool Supersedes(const SavedBitMap& saved) const;

  const std::string query_digest_;
  const std::string path_;
  const Environment environment_;
};

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_DISK_COPY_H_
