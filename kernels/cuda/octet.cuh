#ifndef RATEQUANT_KERNELS_CUDA_OCTET_CUH_
#define RATEQUANT_KERNELS_CUDA_OCTET_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/element.cuh"

// Eight channels side by side are what a lane holds: 16 bytes of fp16 or bf16,
// and, whatever the width, whole bytes of codes (8 codes of `width` bits are
// `width` bytes). head_dim is a multiple of 8.

namespace ratequant::kv::cuda {

inline constexpr int kOctet = 8;

// Vectors of 16 bytes that hold an octet.
template <DType kType>
union OctetStorage {
  typename Element<kType>::Storage elements[kOctet];
  uint4 vectors[kOctet * sizeof(typename Element<kType>::Storage) / 16];
};

// `address` is a multiple of 16.
template <DType kType>
__device__ __forceinline__ void LoadOctet(const void* address,
                                          float (&values)[kOctet]) {
  OctetStorage<kType> storage;
#pragma unroll
  for (unsigned i = 0; i < sizeof(storage) / 16; ++i) {
    storage.vectors[i] = static_cast<const uint4*>(address)[i];
  }
#pragma unroll
  for (int j = 0; j < kOctet; ++j) {
    values[j] = Element<kType>::Load(storage.elements[j]);
  }
}

template <DType kType>
__device__ __forceinline__ void StoreOctet(const float (&values)[kOctet],
                                           void* address) {
  OctetStorage<kType> storage;
#pragma unroll
  for (int j = 0; j < kOctet; ++j) {
    storage.elements[j] = Element<kType>::Store(values[j]);
  }
#pragma unroll
  for (unsigned i = 0; i < sizeof(storage) / 16; ++i) {
    static_cast<uint4*>(address)[i] = storage.vectors[i];
  }
}

// --- codes: a little-endian number of 8 * width bits, code 0 lowest ---

__device__ __forceinline__ uint64_t PackOctet(const int (&codes)[kOctet],
                                              int width) {
  uint32_t low = 0, high = 0;
#pragma unroll
  for (int j = 0; j < kOctet / 2; ++j) {
    low |= static_cast<uint32_t>(codes[j]) << (j * width);
    high |= static_cast<uint32_t>(codes[j + kOctet / 2]) << (j * width);
  }
  return low | static_cast<uint64_t>(high) << (kOctet / 2 * width);
}

__device__ __forceinline__ void UnpackOctet(uint64_t bits, int width,
                                            int (&codes)[kOctet]) {
  const uint32_t mask = (1u << width) - 1;
  const uint32_t low = static_cast<uint32_t>(bits);
  const uint32_t high = static_cast<uint32_t>(bits >> (kOctet / 2 * width));
#pragma unroll
  for (int j = 0; j < kOctet / 2; ++j) {
    codes[j] = static_cast<int>(low >> (j * width) & mask);
    codes[j + kOctet / 2] = static_cast<int>(high >> (j * width) & mask);
  }
}

// Writes the `width` bytes of an octet in the largest pieces that its place
// among the other octets of its row allows: `address` is a multiple of the
// largest power of two that divides `width`, up to 4.
__device__ __forceinline__ void StorePackedOctet(uint64_t bits, int width,
                                                 uint8_t* address) {
  if (width % 4 == 0) {
    for (int i = 0; i < width / 4; ++i) {
      reinterpret_cast<uint32_t*>(address)[i] =
          static_cast<uint32_t>(bits >> (32 * i));
    }
  } else if (width % 2 == 0) {
    for (int i = 0; i < width / 2; ++i) {
      reinterpret_cast<uint16_t*>(address)[i] =
          static_cast<uint16_t>(bits >> (16 * i));
    }
  } else {
    for (int i = 0; i < width; ++i) {
      address[i] = static_cast<uint8_t>(bits >> (8 * i));
    }
  }
}

// Reads the `width` bytes at `address`, whatever its alignment, by whole
// aligned words: those that hold a byte of it and no other, so nothing outside
// a section, which is a multiple of 16, is touched.
__device__ __forceinline__ uint64_t LoadPackedOctet(const uint8_t* address,
                                                    int width) {
  const uintptr_t place = reinterpret_cast<uintptr_t>(address);
  const uint32_t* const words =
      reinterpret_cast<const uint32_t*>(place & ~uintptr_t{3});
  const int skip = static_cast<int>(place & 3);
  const uint32_t word0 = words[0];
  const uint32_t word1 = skip + width > 4 ? words[1] : 0;
  const uint32_t word2 = skip + width > 8 ? words[2] : 0;
  const uint32_t low = __funnelshift_r(word0, word1, skip * 8);
  const uint32_t high = __funnelshift_r(word1, word2, skip * 8);
  return low | static_cast<uint64_t>(high) << 32;
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_OCTET_CUH_
