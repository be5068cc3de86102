#ifndef RATEQUANT_KERNELS_CUDA_QUANTIZE_ROW_CUH_
#define RATEQUANT_KERNELS_CUDA_QUANTIZE_ROW_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/row_lanes.cuh"
#include "kernels/cuda/section_format.h"
#include "kernels/cuda/section_kernel.cuh"
#include "kernels/cuda/trellis_search.cuh"
#include "kernels/quantizers/tcq.h"
#include "kernels/quantizers/turboquant.h"
#include "kernels/quantizers/uniform.h"

// The quantizers that look at one row at a time: kernels/quantizers/uniform.h,
// turboquant.h and tcq.h, over the lanes of a row.

namespace ratequant::kv::cuda {

struct CodebookTables {
  float thresholds[kMaxCodebook];
  float units[kMaxCodebook];
};

// What a block's row quantizers keep in shared memory.
template <class Lanes>
union QuantizeShared {
  CodebookTables codebook;
  struct {
    TrellisTables tables;
    TrellisShared<Lanes> warps[kSectionWarps];
  } trellis;
};

// Brings a format's codebook to shared memory, with all threads of the block.
template <class Lanes>
__device__ __forceinline__ void LoadCodebook(const SectionFormat& format,
                                             QuantizeShared<Lanes>& shared) {
  const int entries = 1 << format.index_width;
  if (format.has_trellis()) {
    TrellisTables& tables = shared.trellis.tables;
    CopyTable(format.trellis->levels, entries, tables.levels);
    CopyTable(format.trellis->units, entries, tables.units);
    CopyTable(format.trellis->middles, entries, tables.middles);
  } else {
    CopyTable(format.thresholds, entries - 1, shared.codebook.thresholds);
    CopyTable(format.units, entries, shared.codebook.units);
  }
  __syncthreads();
}

// CodebookCode by bisection: thresholds ascend.
__device__ __forceinline__ int FindCode(float z, const float* thresholds,
                                        int width) {
  int code = 0;
  for (int step = 1 << (width - 1); step > 0; step /= 2) {
    code += thresholds[code + step - 1] < z ? step : 0;
  }
  return code;
}

// Stores a parameter that is an fp16 value.
__device__ __forceinline__ void StoreParam(uint8_t* address, float value) {
  *reinterpret_cast<uint16_t*>(address) = ToHalf(value);
}

template <class Lanes>
class RowQuantizer {
 public:
  using Values = typename Lanes::Values;
  using Codes = typename Lanes::Codes;

  __device__ RowQuantizer(const SectionFormat& format,
                          QuantizeShared<Lanes>& shared, int head_dim)
      : format_(format),
        shared_(shared),
        head_dim_(head_dim),
        signs_(SignBits<Lanes>::Of(format.seed)) {}

  // Codes of the warp's rows, and their parameters into `section`; a lane whose
  // row doesn't exist has none. Destroys `values`.
  __device__ void Quantize(Values& values, uint8_t* section, int token,
                           Codes& codes) const {
    switch (format_.kind) {
      case CodeKind::kSymmetricRow:
        return QuantizeSymmetric(values, section, token, codes);
      case CodeKind::kAsymmetricRow:
        return QuantizeGroups(values, section, token, codes);
      case CodeKind::kRotatedRow:
        return QuantizeRotated(values, section, token, codes);
      case CodeKind::kCodebookRow:
        return QuantizeCodebook(values, section, token, codes);
      case CodeKind::kHalf:
      case CodeKind::kChannel:
        return;  // not of a row
    }
  }

 private:
  __device__ void QuantizeSymmetric(const Values& values, uint8_t* section,
                                    int token, Codes& codes) const;
  __device__ void QuantizeGroups(const Values& values, uint8_t* section,
                                 int token, Codes& codes) const;
  __device__ void QuantizeRotated(Values& values, uint8_t* section, int token,
                                  Codes& codes) const;
  __device__ void QuantizeCodebook(Values& values, uint8_t* section, int token,
                                   Codes& codes) const;
  // Of rotated values and their squared norm before: codes, and <x, u>.
  __device__ float CodeByCodebook(const Values& values, float squared_norm,
                                  Codes& codes) const;
  __device__ float CodeByTrellis(const Values& values, float squared_norm,
                                 Codes& codes) const;
  // Codes of one octet whose range is known; `leader` stores its parameters.
  __device__ void QuantizeInRange(const float (&values)[kOctet], Range range,
                                  bool leader, int index, uint8_t* section,
                                  int token, int (&codes)[kOctet]) const;

  const SectionFormat& format_;
  QuantizeShared<Lanes>& shared_;
  const int head_dim_;
  const SignBits<Lanes> signs_;
};

template <class Lanes>
__device__ void RowQuantizer<Lanes>::QuantizeSymmetric(const Values& values,
                                                       uint8_t* section,
                                                       int token,
                                                       Codes& codes) const {
  float abs_max = 0.0f;
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      abs_max = fmaxf(abs_max, fabsf(values[octet][i]));
    }
  }
#pragma unroll
  for (int step = 1; step < Lanes::kLanes; step *= 2) {
    abs_max = fmaxf(abs_max, ShuffleXor(abs_max, step));
  }
  const float scale = SymmetricScale(abs_max, format_.width);
  const float reciprocal = ReciprocalOrZero(scale);
  if (section != nullptr && Lanes::LaneInRow() == 0) {
    StoreParam(section + format_.params.ScaleOffset(token, 0), scale);
  }
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      codes[octet][i] =
          SymmetricCode(values[octet][i], scale, reciprocal, format_.width);
    }
  }
}

template <class Lanes>
__device__ void RowQuantizer<Lanes>::QuantizeInRange(
    const float (&values)[kOctet], Range range, bool leader, int index,
    uint8_t* section, int token, int (&codes)[kOctet]) const {
  const float scale = AsymmetricScale(range.low, range.high, format_.width);
  const float zero = AsymmetricZero(range.low);
  const float reciprocal = ReciprocalOrZero(scale);
  if (section != nullptr && leader) {
    StoreParam(section + format_.params.ScaleOffset(token, index), scale);
    StoreParam(section + format_.params.ZeroOffset(token, index), zero);
  }
#pragma unroll
  for (int i = 0; i < kOctet; ++i) {
    codes[i] = AsymmetricCode(values[i], zero, reciprocal, format_.width);
  }
}

// A group is 8 to 128 channels, so 1 to 16 lanes side by side.
template <class Lanes>
__device__ void RowQuantizer<Lanes>::QuantizeGroups(const Values& values,
                                                    uint8_t* section, int token,
                                                    Codes& codes) const {
  const int channels = format_.params.block_channels;
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
    const int channel = Lanes::FirstChannel(octet);
    const Range range =
        RangeOverLanes(RangeOfOctet(values[octet]), channels / kOctet);
    const bool leader = channel < head_dim_ && channel % channels == 0;
    QuantizeInRange(values[octet], range, leader, channel / channels, section,
                    token, codes[octet]);
  }
}

template <class Lanes>
__device__ void RowQuantizer<Lanes>::QuantizeRotated(Values& values,
                                                     uint8_t* section,
                                                     int token,
                                                     Codes& codes) const {
  RotateRows<Lanes>(signs_, values);
  Range range = RangeOfOctet(values[0]);
  if (Lanes::kOctets == 2) {
    range = Join(range, RangeOfOctet(values[Lanes::kOctets - 1]));
  }
  range = RangeOverLanes(range, Lanes::kLanes);
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
    QuantizeInRange(values[octet], range, octet == 0 && Lanes::LaneInRow() == 0,
                    0, section, token, codes[octet]);
  }
}

template <class Lanes>
__device__ void RowQuantizer<Lanes>::QuantizeCodebook(Values& values,
                                                      uint8_t* section,
                                                      int token,
                                                      Codes& codes) const {
  Values terms;
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      terms[octet][i] = values[octet][i] * values[octet][i];
    }
  }
  const float squared_norm = FoldSumOfRows<Lanes>(terms);
  RotateRows<Lanes>(signs_, values);
  const float dot = format_.has_trellis()
                        ? CodeByTrellis(values, squared_norm, codes)
                        : CodeByCodebook(values, squared_norm, codes);
  const bool stores = section != nullptr && Lanes::LaneInRow() == 0;
  if (format_.has_gains()) {
    const int gain = TcqStoredGain(format_.row_scale, squared_norm,
                                   TcqGain(squared_norm), dot);
    if (stores) {
      section[format_.params.ScaleOffset(token, 0)] =
          static_cast<uint8_t>(gain);
    }
    if (gain != 0) return;
  } else {
    const float scale = TurboquantScale(format_.row_scale, squared_norm, dot);
    if (stores) {
      StoreParam(section + format_.params.ScaleOffset(token, 0), scale);
    }
    if (scale != 0.0f) return;
  }
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) codes[octet][i] = 0;
  }
}

template <class Lanes>
__device__ float RowQuantizer<Lanes>::CodeByCodebook(const Values& values,
                                                     float squared_norm,
                                                     Codes& codes) const {
  const CodebookTables& codebook = shared_.codebook;
  const float factor = format_.has_gains()
                           ? TcqFactor(TcqGain(squared_norm), Lanes::kMaxDim)
                           : CodebookFactor(squared_norm, Lanes::kMaxDim);
  Values terms;
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      const float y = values[octet][i];
      codes[octet][i] =
          FindCode(y * factor, codebook.thresholds, format_.width);
      terms[octet][i] = y * codebook.units[codes[octet][i]];
    }
  }
  return FoldSumOfRows<Lanes>(terms);
}

template <class Lanes>
__device__ float RowQuantizer<Lanes>::CodeByTrellis(const Values& values,
                                                    float squared_norm,
                                                    Codes& codes) const {
  const TrellisTables& tables = shared_.trellis.tables;
  const float factor = TcqFactor(TcqGain(squared_norm), Lanes::kMaxDim);
  Values terms;
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      terms[octet][i] = values[octet][i] * factor;
    }
  }
  Codes indexes;
  TrellisSearch<Lanes>(format_.width, tables,
                       shared_.trellis.warps[Lanes::Warp()])
      .Find(terms, factor != 0.0f, codes, indexes);
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      terms[octet][i] = values[octet][i] * tables.units[indexes[octet][i]];
    }
  }
  return FoldSumOfRows<Lanes>(terms);
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_QUANTIZE_ROW_CUH_
