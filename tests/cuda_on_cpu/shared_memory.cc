#include "tests/cuda_on_cpu/shared_memory.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "tests/cuda_on_cpu/fail.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace cuda_on_cpu {
namespace {

constexpr std::align_val_t kAlignment{128};
constexpr size_t kMargin = 256;
// A float of it is -1.4e-16 and an index out of any range.
constexpr unsigned char kGarbage = 0xA5;
constexpr unsigned char kMarginByte = 0xC7;

}  // namespace

SharedMemory::~SharedMemory() { Free(); }

void SharedMemory::Free() {
  if (data_ == nullptr) return;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(data_, capacity_);
#endif
  ::operator delete(data_, kAlignment);
}

void SharedMemory::Reserve(size_t bytes) {
  if (bytes <= capacity_) return;
  Free();
  data_ = static_cast<unsigned char*>(::operator new(bytes, kAlignment));
  capacity_ = bytes;
}

void* SharedMemory::Prepare(size_t bytes) {
  Reserve(bytes + kMargin);
  bytes_ = bytes;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(data_, bytes);
  std::memset(data_, kGarbage, bytes);
  __asan_poison_memory_region(data_ + bytes, capacity_ - bytes);
#else
  std::memset(data_, kGarbage, bytes);
  std::memset(data_ + bytes, kMarginByte, kMargin);
#endif
  return data_;
}

void SharedMemory::CheckOverrun() const {
#if !defined(__SANITIZE_ADDRESS__)
  const unsigned char* const margin = data_ + bytes_;
  const auto* const found =
      std::find_if(margin, margin + kMargin,
                   [](unsigned char byte) { return byte != kMarginByte; });
  if (found != margin + kMargin) {
    Fail("a block wrote at byte %zu of its %zu bytes of dynamic shared memory",
         static_cast<size_t>(found - data_), bytes_);
  }
#endif
}

}  // namespace cuda_on_cpu
