#ifndef RATEQUANT_SERVICES_CALIBRATION_MEMORY_FILE_H_
#define RATEQUANT_SERVICES_CALIBRATION_MEMORY_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ratequant::calibration {

// A file that exists only in memory and only as long as this object or another
// process holds it open: nothing is left on disk, whatever dies. Another
// process of the same user opens it by path(). Its size is fixed (sealed), so
// that nobody can shrink it under the mapping. Thread-compatible.
class MemoryFile {
 public:
  // `size` zero bytes, all allocated at once. `name` shows in /proc.
  // RESOURCE_EXHAUSTED when the memory isn't there.
  static absl::StatusOr<std::unique_ptr<MemoryFile>> Create(
      const std::string& name, size_t size);

  // A file that holds `content` (not empty).
  static absl::StatusOr<std::unique_ptr<MemoryFile>> CreateWith(
      const std::string& name, absl::string_view content);

  ~MemoryFile();

  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  // /proc/<pid>/fd/<n>, valid while this object lives.
  std::string path() const;

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  explicit MemoryFile(int fd) : fd_(fd) {}

  absl::Status Allocate(size_t size);

  const int fd_;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_MEMORY_FILE_H_
