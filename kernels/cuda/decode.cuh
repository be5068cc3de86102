#ifndef RATEQUANT_KERNELS_CUDA_DECODE_CUH_
#define RATEQUANT_KERNELS_CUDA_DECODE_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/section_kernel.cuh"
#include "kernels/cuda/shared_memory.h"
#include "kernels/cuda/trellis_octet.cuh"
#include "kernels/quantizers/gain.h"
#include "kernels/quantizers/uniform.h"

// Decoding: a lane reads the bytes of its eight codes and writes eight elements
// in pieces of 16 bytes; lanes of a warp write side by side.

namespace ratequant::kv::cuda {

struct DecodeShared {
  float units[kMaxCodebook];
};

// One block's work on one task, whose rows lie `row_stride` elements apart.
template <class Lanes, DType kType>
class DecodeTile {
 public:
  __device__ DecodeTile(const SectionFormat& format, int head_dim,
                        int64_t row_stride, const DecodeTask& task,
                        DecodeShared& shared)
      : format_(format),
        head_dim_(head_dim),
        row_stride_(row_stride),
        task_(task),
        shared_(shared) {}

  // Decodes rows [begin, end) of the task.
  __device__ void Run(int begin, int end) {
    if (format_.kind == CodeKind::kCodebookRow) {
      CopyTable(format_.units, 1 << format_.index_width, shared_.units);
      __syncthreads();
    }
    DecodeRows(begin, end);
  }

 private:
  using Values = typename Lanes::Values;

  __device__ bool HasChannel(int octet) const {
    return Lanes::FirstChannel(octet) < head_dim_;
  }

  __device__ void DecodeRows(int begin, int end) const;
  // The lane's eight values of page row `token`, still rotated.
  __device__ void DecodeOctet(int token, int channel,
                              float (&values)[kOctet]) const;
  // Eight units of a codebook, for the octet of `row` from `channel` on.
  __device__ void LoadUnits(const uint8_t* row, int channel,
                            float (&units)[kOctet]) const;
  __device__ void LoadParams(size_t offset, float (&params)[kOctet]) const {
    LoadOctet<DType::kFloat16>(task_.section + offset, params);
  }
  __device__ float LoadParam(size_t offset) const {
    return FromHalf(*reinterpret_cast<const uint16_t*>(task_.section + offset));
  }
  __device__ float LoadRowScale(size_t offset) const {
    return format_.has_gains() ? GainOfCode(task_.section[offset])
                               : LoadParam(offset);
  }

  const SectionFormat& format_;
  const int head_dim_;
  const int64_t row_stride_;
  const DecodeTask& task_;
  DecodeShared& shared_;
};

template <class Lanes, DType kType>
__device__ void DecodeTile<Lanes, kType>::DecodeRows(int begin, int end) const {
  const bool rotated = format_.kind == CodeKind::kRotatedRow ||
                       format_.kind == CodeKind::kCodebookRow;
  for (int base = begin + Lanes::Warp() * Lanes::kRowsPerWarp; base < end;
       base += kSectionWarps * Lanes::kRowsPerWarp) {
    const int row = base + Lanes::RowSlot();
    const bool exists = row < end;
    Values values;
#pragma unroll
    for (int octet = 0; octet < Lanes::kOctets; ++octet) {
      if (exists && HasChannel(octet)) {
        DecodeOctet(task_.first + row, Lanes::FirstChannel(octet),
                    values[octet]);
        continue;
      }
#pragma unroll
      for (int i = 0; i < kOctet; ++i) values[octet][i] = 0.0f;
    }
    // Signs made ahead of the loop stop ptxas 13.0 for sm_120 ("register
    // allocation failed").
    if (rotated) {
      RotateRowsBack<Lanes>(SignBits<Lanes>::Of(format_.seed), values);
    }
#pragma unroll
    for (int octet = 0; octet < Lanes::kOctets; ++octet) {
      if (!exists || !HasChannel(octet)) continue;
      AddMean(task_.mean, Lanes::FirstChannel(octet), values[octet]);
      StoreOctet<kType>(
          values[octet],
          static_cast<char*>(task_.rows) +
              RowOffset<kType>(row_stride_, row, Lanes::FirstChannel(octet)));
    }
  }
}

template <class Lanes, DType kType>
__device__ void DecodeTile<Lanes, kType>::DecodeOctet(
    int token, int channel, float (&values)[kOctet]) const {
  const ParamLayout& params = format_.params;
  const int width = format_.width;
  const uint8_t* const row = task_.section + format_.codes_offset +
                             static_cast<size_t>(token) * format_.row_bytes;
  if (format_.kind == CodeKind::kHalf) {
    LoadOctet<DType::kFloat16>(row + channel * sizeof(uint16_t), values);
    return;
  }
  if (format_.kind == CodeKind::kCodebookRow) {
    LoadUnits(row, channel, values);
    const float scale = LoadRowScale(params.ScaleOffset(token, 0));
#pragma unroll
    for (int i = 0; i < kOctet; ++i) values[i] *= scale;
    return;
  }
  int codes[kOctet];
  UnpackOctet(LoadPackedOctet(row + channel / kOctet * width, width), width,
              codes);
  if (format_.kind == CodeKind::kChannel) {
    float scales[kOctet], zeros[kOctet];
    LoadParams(params.ScaleOffset(token, channel), scales);
    LoadParams(params.ZeroOffset(token, channel), zeros);
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      values[i] = AsymmetricValue(codes[i], zeros[i], scales[i]);
    }
    return;
  }
  const int index = channel / params.block_channels;
  const float scale = LoadParam(params.ScaleOffset(token, index));
  if (format_.kind == CodeKind::kSymmetricRow) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      values[i] = SymmetricValue(codes[i], scale, width);
    }
  } else {
    const float zero = LoadParam(params.ZeroOffset(token, index));
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      values[i] = AsymmetricValue(codes[i], zero, scale);
    }
  }
}

template <class Lanes, DType kType>
__device__ void DecodeTile<Lanes, kType>::LoadUnits(
    const uint8_t* row, int channel, float (&units)[kOctet]) const {
  const int width = format_.width;
  const int octet = channel / kOctet;
  const uint64_t codes = LoadPackedOctet(row + octet * width, width);
  if (format_.has_trellis()) {
    const int before = (octet == 0 ? head_dim_ / kOctet : octet) - 1;
    const auto previous =
        static_cast<uint32_t>(LoadPackedOctet(row + before * width, width));
    TrellisOctet::Of(static_cast<uint32_t>(codes), previous, width)
        .ForEachIndex(
            width, [&](int i, int index) { units[i] = shared_.units[index]; });
    return;
  }
  int indexes[kOctet];
  UnpackOctet(codes, width, indexes);
#pragma unroll
  for (int i = 0; i < kOctet; ++i) units[i] = shared_.units[indexes[i]];
}

template <class Lanes, DType kType>
__global__ void __launch_bounds__(kSectionThreads)
    DecodeKernel(SectionBatch<DecodeTask> batch) {
  const DecodeTask task = batch.tasks[blockIdx.x];
  if (!CheckTask(batch, task, false)) return;
  const int begin = static_cast<int>(blockIdx.y) * kTileRows;
  if (begin >= task.count) return;
  DecodeTile<Lanes, kType>(batch.formats[task.format], batch.head_dim,
                           batch.row_stride, task, SharedAs<DecodeShared>())
      .Run(begin, min(begin + kTileRows, task.count));
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_DECODE_CUH_
