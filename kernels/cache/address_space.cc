#include "kernels/cache/address_space.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace ratequant::kv {

AddressSpace::~AddressSpace() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(bytes_));
}

absl::StatusOr<AddressSpace> AddressSpace::Reserve(int64_t bytes) {
  AddressSpace space;
  if (bytes == 0) return space;
  void* const data =
      mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "can't reserve ", bytes, " bytes of addresses for a KV cache (",
        std::generic_category().message(errno),
        "); fewer pages, fewer sequences, shorter ones or a smaller window "
        "need "
        "fewer"));
  }
  space.data_ = static_cast<uint8_t*>(data);
  space.bytes_ = bytes;
  return space;
}

void AddressSpace::Clear(int64_t offset, int64_t bytes) const {
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t end = offset + bytes;
  const int64_t whole_begin = std::min(end, (offset + page - 1) / page * page);
  const int64_t whole_end = std::max(whole_begin, end / page * page);
  std::memset(data_ + offset, 0, static_cast<size_t>(whole_begin - offset));
  std::memset(data_ + whole_end, 0, static_cast<size_t>(end - whole_end));
  const size_t whole = static_cast<size_t>(whole_end - whole_begin);
  // Where the system keeps the memory it is made zeros by hand.
  if (whole > 0 && madvise(data_ + whole_begin, whole, MADV_DONTNEED) != 0) {
    std::memset(data_ + whole_begin, 0, whole);
  }
}

}  // namespace ratequant::kv
