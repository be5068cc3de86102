#ifndef RATEQUANT_KERNELS_CACHE_ADDRESS_SPACE_H_
#define RATEQUANT_KERNELS_CACHE_ADDRESS_SPACE_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ratequant::kv {

// A range of addresses that reads as zeros and costs memory where it has been
// written. Move-only.
class AddressSpace {
 public:
  AddressSpace() = default;
  ~AddressSpace();
  AddressSpace(AddressSpace&& other) noexcept { *this = std::move(other); }
  AddressSpace& operator=(AddressSpace&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  // RESOURCE_EXHAUSTED when there is no such range; an empty one for 0 bytes.
  static absl::StatusOr<AddressSpace> Reserve(int64_t bytes);

  uint8_t* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

  // Makes [offset, offset + bytes) zeros and gives its memory back, as far as
  // it fills whole pages of the system.
  void Clear(int64_t offset, int64_t bytes) const;

 private:
  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CACHE_ADDRESS_SPACE_H_
