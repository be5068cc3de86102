#ifndef RATEQUANT_KERNELS_CUDA_ATTENTION_CODES_CUH_
#define RATEQUANT_KERNELS_CUDA_ATTENTION_CODES_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/section_kernel.cuh"
#include "kernels/cuda/trellis_octet.cuh"
#include "kernels/quantizers/gain.h"
#include "kernels/quantizers/uniform.h"

// Codes as attention uses them. Converting an integer costs several
// instructions for each code, so it isn't done: a code's bits, where they stand
// in a word, are those of a subnormal float, code * 2^-149, which multiplies
// exactly and at full speed. An octet is cut into four pairs of codes; the
// second of a pair stands `width` bits higher, so it is 2^width as large. Both
// factors are undone in what the codes are multiplied with, once for many
// tokens.

namespace ratequant::kv::cuda {

// 2^80 on one side of a product with code * 2^-149, 2^69 on its sum: neither
// fp16's smallest scales nor its largest values get near the ends of fp32.
__device__ constexpr float kCodeLift = 1208925819614629174706176.0f;
__device__ constexpr float kCodeUnlift = 590295810358705651712.0f;

// 2^-width for the second code of a pair, 1 for the first.
__device__ __forceinline__ float PairFactor(int channel, int width) {
  return channel % 2 == 0
             ? 1.0f
             : FloatOfBits(static_cast<uint32_t>(127 - width) << 23);
}

// Calls use(i, bits) for the eight codes; those of odd i stand `width` bits
// higher.
template <class Use>
__device__ __forceinline__ void ForEachCode(uint64_t octet, int width,
                                            const Use& use) {
  const uint32_t first = (1u << width) - 1;
  const uint32_t second = first << width;
  const uint32_t low = static_cast<uint32_t>(octet);
  const uint32_t high = static_cast<uint32_t>(octet >> (4 * width));
  const uint32_t pairs[4] = {low, low >> (2 * width), high,
                             high >> (2 * width)};
#pragma unroll
  for (int i = 0; i < kOctet; i += 2) {
    use(i, pairs[i / 2] & first);
    use(i + 1, pairs[i / 2] & second);
  }
}

__device__ __forceinline__ void CodesAsFloats(uint64_t octet, int width,
                                              float (&values)[kOctet]) {
  ForEachCode(octet, width,
              [&](int i, uint32_t bits) { values[i] = FloatOfBits(bits); });
}

// Values of a codebook in shared memory.
__device__ __forceinline__ void CodesAsUnits(uint64_t octet, int width,
                                             const float* units,
                                             float (&values)[kOctet]) {
  ForEachCode(octet, width, [&](int i, uint32_t bits) {
    values[i] = units[bits >> (i % 2 * width)];
  });
}

// The same for the codes of a trellis; `previous` are the eight before them.
__device__ __forceinline__ void TrellisCodesAsUnits(uint32_t octet,
                                                    uint32_t previous,
                                                    int width,
                                                    const float* units,
                                                    float (&values)[kOctet]) {
  TrellisOctet::Of(octet, previous, width)
      .ForEachIndex(width, [&](int i, int index) { values[i] = units[index]; });
}

// Loads codes[i] from octets + i * stride for i < count, 0 for the rest. The
// octets of widths 1, 2, 4 and 8 lie at multiples of their size.
template <int kBatch>
__device__ __forceinline__ void LoadCodes(const uint8_t* octets, int stride,
                                          int width, int count,
                                          uint64_t (&codes)[kBatch]) {
  const auto load_each = [&](const auto& load) {
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      codes[i] = i < count ? load(octets + i * stride) : 0;
    }
  };
  switch (width) {
    case 1:
      return load_each([](const uint8_t* at) -> uint64_t { return *at; });
    case 2:
      return load_each([](const uint8_t* at) -> uint64_t {
        return *reinterpret_cast<const uint16_t*>(at);
      });
    case 4:
      return load_each([](const uint8_t* at) -> uint64_t {
        return *reinterpret_cast<const uint32_t*>(at);
      });
    case 8:
      return load_each([](const uint8_t* at) -> uint64_t {
        return *reinterpret_cast<const uint64_t*>(at);
      });
    default:
      return load_each(
          [width](const uint8_t* at) { return LoadPackedOctet(at, width); });
  }
}

// A value is zero + code * scale, or units[code] * scale with a zero of 0.
struct RowParams {
  float scale = 0.0f;
  float zero = 0.0f;
};

// Parameter `index` of page row `row`, in a format that has them row by row.
__device__ __forceinline__ RowParams LoadRowParams(const SectionFormat& format,
                                                   const uint8_t* section,
                                                   int row, int index) {
  // ParamLayout::ScaleOffset without its division: a block is one row.
  const auto load = [&](int offset) {
    return FromHalf(*reinterpret_cast<const uint16_t*>(section + offset));
  };
  const int place = row * static_cast<int>(format.params.scales_stride) +
                    index * static_cast<int>(sizeof(uint16_t));
  if (format.kind == CodeKind::kCodebookRow) {
    return {format.has_gains() ? GainOfCode(section[row]) : load(place), 0.0f};
  }
  const float scale = load(place);
  if (format.kind == CodeKind::kSymmetricRow) {
    return {static_cast<float>(SymmetricStep(format.width)) * scale,
            static_cast<float>(SymmetricOffset(format.width)) * scale};
  }
  return {scale, load(place + static_cast<int>(format.params.zeros_offset))};
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_ATTENTION_CODES_CUH_
