#ifndef RATEQUANT_CLIENTS_REPLAY_MAPPED_FILE_H_
#define RATEQUANT_CLIENTS_REPLAY_MAPPED_FILE_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ratequant::replay {

// A file mapped for reading. The file must not shrink while it is mapped:
// reading what is gone ends the process. Thread-safe; move-only.
class MappedFile {
 public:
  // NOT_FOUND, PERMISSION_DENIED; INVALID_ARGUMENT for what isn't a regular
  // file or is empty.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  absl::string_view bytes() const {
    return {static_cast<const char*>(data_), size_};
  }

 private:
  MappedFile(void* data, size_t size) : data_(data), size_(size) {}

  void* data_ = nullptr;  // null: moved from
  size_t size_ = 0;
};

}  // namespace ratequant::replay

#endif  // RATEQUANT_CLIENTS_REPLAY_MAPPED_FILE_H_
