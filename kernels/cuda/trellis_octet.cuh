#ifndef RATEQUANT_KERNELS_CUDA_TRELLIS_OCTET_CUH_
#define RATEQUANT_KERNELS_CUDA_TRELLIS_OCTET_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/octet.cuh"
#include "kernels/quantizers/trellis.h"

namespace ratequant::kv::cuda {

// What eight codes stand for, in 32 bits and all at once: index i is twice the
// i-th field of `upper`, of `width` bits, plus the lowest bit of the i-th of
// `second`.
struct TrellisOctet {
  uint32_t upper;
  uint32_t second;

  // `previous` are the eight codes before `codes` on the row's circle. Of
  // either, the bits beyond the eight codes don't count.
  static __device__ __forceinline__ TrellisOctet Of(uint32_t codes,
                                                    uint32_t previous,
                                                    int width) {
    static_assert(kOctet * kMaxTrellisWidth == 32);
    const uint32_t lowest = width == 1   ? 0xFFu
                            : width == 2 ? 0x5555u
                            : width == 3 ? 0x249249u
                                         : 0x11111111u;
    const uint32_t tail = previous & lowest;
    // In the place of each code, the one `count` before it.
    const auto before = [&](int count) {
      return codes << (count * width) | tail >> ((kOctet - count) * width);
    };
    const uint32_t first = (codes ^ before(1) ^ before(4)) & lowest;
    return {(codes & ~lowest) | first, before(2) & lowest};
  }

  // Calls use(i, index) for the eight indexes.
  template <class Use>
  __device__ __forceinline__ void ForEachIndex(int width,
                                               const Use& use) const {
    const uint32_t mask = (1u << width) - 1;
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      const uint32_t high = upper >> (i * width) & mask;
      const uint32_t low = second >> (i * width) & 1;
      use(i, static_cast<int>(high * 2 + low));
    }
  }
};

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_TRELLIS_OCTET_CUH_
