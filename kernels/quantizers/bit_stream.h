#ifndef RATEQUANT_KERNELS_QUANTIZERS_BIT_STREAM_H_
#define RATEQUANT_KERNELS_QUANTIZERS_BIT_STREAM_H_

#include <cstddef>
#include <cstdint>

#include "kernels/quantizers/host_device.h"

// The codes of one token: a contiguous bit stream, least significant bit first
// (kernels/FORMAT.md, "Rows").

namespace ratequant::kv {

// Bytes of `count` codes of `width` bits.
RQ_HOST_DEVICE constexpr size_t BytesOfCodes(int width, int count) {
  return (static_cast<size_t>(width) * count + 7) / 8;
}

// Code number `index` of a run of codes of `width` bits, 1 to 8.
RQ_HOST_DEVICE inline int CodeAt(const uint8_t* row, int width, int index) {
  const int bit = index * width;
  int word = row[bit / 8];
  // A code lies in at most two bytes; the second is read only if it is needed,
  // so that nothing behind the row is touched.
  if (bit % 8 + width > 8) word |= row[bit / 8 + 1] << 8;
  return (word >> (bit % 8)) & ((1 << width) - 1);
}

// Writes `count` codes into BytesOfCodes(width, count) bytes.
RQ_HOST_DEVICE inline void PackCodes(const uint8_t* codes, int width, int count,
                                     uint8_t* row) {
  unsigned pending = 0;
  int bits = 0;
  for (int i = 0; i < count; ++i) {
    pending |= static_cast<unsigned>(codes[i]) << bits;
    for (bits += width; bits >= 8; bits -= 8, pending >>= 8) {
      *row++ = static_cast<uint8_t>(pending);
    }
  }
  if (bits > 0) *row = static_cast<uint8_t>(pending);
}

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_BIT_STREAM_H_
