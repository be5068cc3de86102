#ifndef RATEQUANT_KERNELS_CUDA_PAGE_OPS_H_
#define RATEQUANT_KERNELS_CUDA_PAGE_OPS_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/status.h"

namespace ratequant::kv::cuda {

// Items of one size in device memory: the pages of a layer, or its sidecars.
struct MemoryPool {
  uint8_t* data = nullptr;  // [items, item_bytes], a multiple of 16
  int64_t item_bytes = 0;   // a multiple of 16
};

// A new content for an item of every pool: that of `source`, or zeros where
// source is -1. Nothing is done where item is -1.
struct ItemEdit {
  int32_t item = -1;
  int32_t source = -1;
};

// Zeroes new pages, copies pages on write, and copies the sidecars of a slot
// for a fork, over all layers at once.
struct EditLaunch {
  const MemoryPool* pools = nullptr;  // [num_pools], device
  int num_pools = 0;
  // [num_edits], device. No item may be written twice, or written and read.
  const ItemEdit* edits = nullptr;
  int num_edits = 0;
};

// Starts one kernel; capturable: its grid depends on the two counts alone.
// INVALID_ARGUMENT for null pointers and negative counts.
Status LaunchEdits(const EditLaunch& launch, cudaStream_t stream);

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_PAGE_OPS_H_
