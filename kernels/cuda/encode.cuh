#ifndef RATEQUANT_KERNELS_CUDA_ENCODE_CUH_
#define RATEQUANT_KERNELS_CUDA_ENCODE_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/quantize_row.cuh"
#include "kernels/cuda/section_kernel.cuh"
#include "kernels/cuda/shared_memory.h"
#include "kernels/quantizers/uniform.h"

// Encoding: rows are read in 16-byte pieces, a row or more per warp; packed
// codes are gathered in shared memory and written out side by side.

namespace ratequant::kv::cuda {

template <class Lanes>
struct EncodeShared {
  // Codes of the rows that a warp has at a time.
  alignas(
      16) uint8_t packed[kSectionWarps][kWarpLanes * kOctet * Lanes::kOctets];
  union {
    QuantizeShared<Lanes> quantize;
    struct {
      float low[kSectionWarps][Lanes::kMaxDim];
      float high[kSectionWarps][Lanes::kMaxDim];
      float zero[Lanes::kMaxDim];
      float reciprocal[Lanes::kMaxDim];
    } channel;
  };
};

// The rows of an EncodeTask.
template <DType kType>
class TaskRows {
 public:
  __device__ TaskRows(const SectionBatch<EncodeTask>& batch,
                      const EncodeTask& task)
      : batch_(batch), task_(task) {}

  __device__ void Load(int row, int channel, float (&values)[kOctet]) const {
    LoadOctet<kType>(static_cast<const char*>(task_.rows) +
                         RowOffset<kType>(batch_.row_stride, row, channel),
                     values);
    RefuseBadValues(batch_.fault, task_.first + row, channel, values);
  }

 private:
  const SectionBatch<EncodeTask>& batch_;
  const EncodeTask& task_;
};

// One block's work on rows of a section, those of `task` but for task.rows:
// `Rows::Load(row, channel, values)` gives eight values of row task.first +
// `row`, zeros for what fp16 can't hold.
template <class Lanes, class Rows>
class EncodeTile {
 public:
  __device__ EncodeTile(const SectionFormat& format, int head_dim,
                        const EncodeTask& task, const Rows& rows,
                        EncodeShared<Lanes>& shared)
      : format_(format),
        head_dim_(head_dim),
        task_(task),
        rows_(rows),
        shared_(shared) {}

  // Encodes rows [begin, end) of the task: whole groups of tokens.
  __device__ void Run(int begin, int end);

 private:
  using Values = typename Lanes::Values;
  using Codes = typename Lanes::Codes;

  __device__ bool HasChannel(int octet) const {
    return Lanes::FirstChannel(octet) < head_dim_;
  }

  __device__ void EncodeRows(int begin, int end);
  __device__ void EncodeChannels(int begin);
  __device__ void MeasureChannels(int begin, int start);
  __device__ void MakeChannelParams(int begin, bool has_rows);

  // The lane's share of task row `row`; zeros where the row or channel doesn't
  // exist.
  __device__ void LoadRow(int row, bool exists, Values& values) const;
  __device__ void StoreHalves(int row, const Values& values) const;
  // Writes the codes of task rows [base, base + count), one a row slot.
  __device__ void StoreCodes(int base, int count, const Codes& codes) const;

  const SectionFormat& format_;
  const int head_dim_;
  const EncodeTask& task_;
  const Rows& rows_;
  EncodeShared<Lanes>& shared_;
};

template <class Lanes, class Rows>
__device__ void EncodeTile<Lanes, Rows>::Run(int begin, int end) {
  if (format_.kind == CodeKind::kChannel) {
    for (int group = begin; group < end; group += format_.params.block_tokens) {
      EncodeChannels(group);
    }
    return;
  }
  if (format_.kind == CodeKind::kCodebookRow) {
    LoadCodebook(format_, shared_.quantize);
  }
  EncodeRows(begin, end);
}

template <class Lanes, class Rows>
__device__ void EncodeTile<Lanes, Rows>::EncodeRows(int begin, int end) {
  const RowQuantizer<Lanes> quantizer(format_, shared_.quantize, head_dim_);
  for (int base = begin + Lanes::Warp() * Lanes::kRowsPerWarp; base < end;
       base += kSectionWarps * Lanes::kRowsPerWarp) {
    const int row = base + Lanes::RowSlot();
    const int page_row = task_.first + row;
    const bool exists = row < end;
    Values values;
    LoadRow(row, exists, values);
    if (page_row < task_.skip_tokens) {
      // A row of zeros is what a sink is stored as, in every format.
#pragma unroll
      for (int octet = 0; octet < Lanes::kOctets; ++octet) {
#pragma unroll
        for (int i = 0; i < kOctet; ++i) values[octet][i] = 0.0f;
      }
    }
    if (format_.kind == CodeKind::kHalf) {
      if (exists) StoreHalves(row, values);
      continue;
    }
    Codes codes;
    quantizer.Quantize(values, exists ? task_.section : nullptr, page_row,
                       codes);
    StoreCodes(base, min(end - base, Lanes::kRowsPerWarp), codes);
  }
}

template <class Lanes, class Rows>
__device__ void EncodeTile<Lanes, Rows>::LoadRow(int row, bool exists,
                                                 Values& values) const {
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
    float(&v)[kOctet] = values[octet];
    if (!exists || !HasChannel(octet)) {
#pragma unroll
      for (int i = 0; i < kOctet; ++i) v[i] = 0.0f;
      continue;
    }
    rows_.Load(row, Lanes::FirstChannel(octet), v);
  }
}

template <class Lanes, class Rows>
__device__ void EncodeTile<Lanes, Rows>::StoreHalves(
    int row, const Values& values) const {
  uint8_t* const halves =
      task_.section + format_.codes_offset +
      static_cast<size_t>(task_.first + row) * format_.row_bytes;
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
    if (!HasChannel(octet)) continue;
    StoreOctet<DType::kFloat16>(
        values[octet], halves + Lanes::FirstChannel(octet) * sizeof(uint16_t));
  }
}

// Copies `count` bytes from shared memory, a multiple of 16, with all lanes of
// the warp, in the largest pieces that fit.
__device__ __forceinline__ void CopyWithWarp(const uint8_t* from, int count,
                                             uint8_t* to) {
  const int lane = threadIdx.x % kWarpLanes;
  const unsigned odd = static_cast<unsigned>(
      (reinterpret_cast<uintptr_t>(to) | static_cast<unsigned>(count)) & 15);
  if (odd == 0) {
    for (int i = lane; i < count / 16; i += kWarpLanes) {
      reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
    }
  } else if (odd % 4 == 0) {
    for (int i = lane; i < count / 4; i += kWarpLanes) {
      reinterpret_cast<uint32_t*>(to)[i] =
          reinterpret_cast<const uint32_t*>(from)[i];
    }
  } else {
    for (int i = lane; i < count; i += kWarpLanes) to[i] = from[i];
  }
}

template <class Lanes, class Rows>
__device__ void EncodeTile<Lanes, Rows>::StoreCodes(int base, int count,
                                                    const Codes& codes) const {
  const int width = format_.width;
  const int row_bytes = static_cast<int>(format_.row_bytes);
  uint8_t* const packed = shared_.packed[Lanes::Warp()];
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
    if (Lanes::RowSlot() >= count || !HasChannel(octet)) continue;
    StorePackedOctet(PackOctet(codes[octet], width), width,
                     packed + Lanes::RowSlot() * row_bytes +
                         Lanes::FirstChannel(octet) / kOctet * width);
  }
  __syncwarp();
  CopyWithWarp(packed, count * row_bytes,
               task_.section + format_.codes_offset +
                   static_cast<size_t>(task_.first + base) * row_bytes);
  __syncwarp();  // the next rows reuse `packed`
}

// kivi K: one group of tokens, [begin, begin + block_tokens). Its rows are read
// twice, the second time from the cache.
template <class Lanes, class Rows>
__device__ void EncodeTile<Lanes, Rows>::EncodeChannels(int begin) {
  const int tokens = format_.params.block_tokens;
  // First row that counts; sinks come before it.
  const int skipped = task_.skip_tokens - (task_.first + begin);
  const int start = skipped < 0 ? 0 : min(skipped, tokens);
  MeasureChannels(begin, start);
  __syncthreads();
  MakeChannelParams(begin, start < tokens);
  __syncthreads();
  const auto& channel = shared_.channel;
  for (int slot = Lanes::Warp() * Lanes::kRowsPerWarp; slot < tokens;
       slot += kSectionWarps * Lanes::kRowsPerWarp) {
    const int row = slot + Lanes::RowSlot();
    const bool counts = row >= start && row < tokens;
    Values values;
    LoadRow(begin + row, counts, values);
    Codes codes;
#pragma unroll
    for (int octet = 0; octet < Lanes::kOctets; ++octet) {
#pragma unroll
      for (int i = 0; i < kOctet; ++i) {
        const int c = Lanes::FirstChannel(octet) + i;
        codes[octet][i] =
            counts && HasChannel(octet)
                ? AsymmetricCode(values[octet][i], channel.zero[c],
                                 channel.reciprocal[c], format_.width)
                : 0;
      }
    }
    StoreCodes(begin + slot, min(tokens - slot, Lanes::kRowsPerWarp), codes);
  }
  // The next group may begin: its ranges were read before the last barrier, and
  // its parameters are written after the next.
}

// Every channel's range over the rows that each warp has.
template <class Lanes, class Rows>
__device__ void EncodeTile<Lanes, Rows>::MeasureChannels(int begin, int start) {
  const int tokens = format_.params.block_tokens;
  Range ranges[Lanes::kOctets][kOctet];
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) ranges[octet][i] = {INFINITY, -INFINITY};
  }
  for (int slot = Lanes::Warp() * Lanes::kRowsPerWarp; slot < tokens;
       slot += kSectionWarps * Lanes::kRowsPerWarp) {
    const int row = slot + Lanes::RowSlot();
    Values values;
    LoadRow(begin + row, row < tokens, values);
    if (row < start || row >= tokens) continue;
#pragma unroll
    for (int octet = 0; octet < Lanes::kOctets; ++octet) {
#pragma unroll
      for (int i = 0; i < kOctet; ++i) {
        ranges[octet][i] = Extend(ranges[octet][i], values[octet][i]);
      }
    }
  }
#pragma unroll
  for (int octet = 0; octet < Lanes::kOctets; ++octet) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      Range range = ranges[octet][i];
#pragma unroll
      for (int step = Lanes::kLanes; step < kWarpLanes; step *= 2) {
        range = Join(
            range, {ShuffleXor(range.low, step), ShuffleXor(range.high, step)});
      }
      if (Lanes::RowSlot() != 0) continue;
      const int c = Lanes::FirstChannel(octet) + i;
      shared_.channel.low[Lanes::Warp()][c] = range.low;
      shared_.channel.high[Lanes::Warp()][c] = range.high;
    }
  }
}

template <class Lanes, class Rows>
__device__ void EncodeTile<Lanes, Rows>::MakeChannelParams(int begin,
                                                           bool has_rows) {
  auto& channel = shared_.channel;
  const int token = task_.first + begin;
  for (int c = threadIdx.x; c < head_dim_; c += kSectionThreads) {
    float scale = 0.0f, zero = 0.0f;
    if (has_rows) {
      Range range = {channel.low[0][c], channel.high[0][c]};
#pragma unroll
      for (int warp = 1; warp < kSectionWarps; ++warp) {
        range = Join(range, {channel.low[warp][c], channel.high[warp][c]});
      }
      scale = AsymmetricScale(range.low, range.high, format_.width);
      zero = AsymmetricZero(range.low);
    }
    channel.zero[c] = zero;
    channel.reciprocal[c] = ReciprocalOrZero(scale);
    StoreParam(task_.section + format_.params.ScaleOffset(token, c), scale);
    StoreParam(task_.section + format_.params.ZeroOffset(token, c), zero);
  }
}

template <class Lanes, DType kType>
__global__ void __launch_bounds__(kSectionThreads)
    EncodeKernel(SectionBatch<EncodeTask> batch) {
  const EncodeTask task = batch.tasks[blockIdx.x];
  if (!CheckTask(batch, task, true)) return;
  const SectionFormat& format = batch.formats[task.format];
  const int tile = TileRows(format);
  const int begin = static_cast<int>(blockIdx.y) * tile;
  if (begin >= task.count) return;
  EncodeTile<Lanes, TaskRows<kType>>(format, batch.head_dim, task,
                                     TaskRows<kType>(batch, task),
                                     SharedAs<EncodeShared<Lanes>>())
      .Run(begin, min(begin + tile, task.count));
}

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_ENCODE_CUH_
