#include "services/calibration/memory_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

namespace ratequant::calibration {
namespace {

absl::Status Failed(const char* what, size_t size, int error) {
  return absl::ResourceExhaustedError(
      absl::StrCat("cannot get ", size, " bytes of shared memory: ", what, ": ",
                   strerror(error)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<MemoryFile>> MemoryFile::Create(
    const std::string& name, size_t size) {
  const int fd = memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return Failed("memfd_create", size, errno);
  std::unique_ptr<MemoryFile> file(new MemoryFile(fd));
  absl::Status allocated = file->Allocate(size);
  if (!allocated.ok()) return allocated;
  return file;
}

absl::StatusOr<std::unique_ptr<MemoryFile>> MemoryFile::CreateWith(
    const std::string& name, absl::string_view content) {
  auto file = Create(name, content.size());
  if (!file.ok()) return file.status();
  memcpy((*file)->data(), content.data(), content.size());
  return file;
}

// Allocating now turns "no memory" into an error here instead of a SIGBUS in
// whoever touches a page first.
absl::Status MemoryFile::Allocate(size_t size) {
  if (size == 0) return absl::InvalidArgumentError("an empty memory file");
  const int error = posix_fallocate(fd_, 0, static_cast<off_t>(size));
  if (error != 0) return Failed("posix_fallocate", size, error);
  if (fcntl(fd_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return Failed("sealing", size, errno);
  }
  void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (data == MAP_FAILED) return Failed("mmap", size, errno);
  data_ = static_cast<uint8_t*>(data);
  size_ = size;
  return absl::OkStatus();
}

MemoryFile::~MemoryFile() {
  if (data_ != nullptr) munmap(data_, size_);
  close(fd_);
}

std::string MemoryFile::path() const {
  return absl::StrCat("/proc/", getpid(), "/fd/", fd_);
}

}  // namespace ratequant::calibration
