#ifndef RATEQUANT_KERNELS_PAGING_SEQUENCE_STEP_H_
#define RATEQUANT_KERNELS_PAGING_SEQUENCE_STEP_H_

#include <cstdint>

#include "kernels/quantizers/host_device.h"

namespace ratequant::kv {

// One sequence's part of a step: its `count` new tokens, positions [begin,
// begin + count), are rows [first_row, first_row + count) of the step's
// tensors. Appending packs what has left the window by then; attention asks
// with the new tokens. Plain data: an array of them lies in device memory.
struct SequenceStep {
  int32_t slot = 0;
  int32_t begin = 0;
  int32_t count = 0;  // 0: the entry is not used
  int32_t first_row = 0;
  // Tokens that are in pages whatever the window, down to a whole block: those
  // of a forked prefix, and those that had left the window before the sequence
  // was truncated.
  int32_t packed_floor = 0;
};

// Positions of a group below this are in pages (sinks apart: their place in the
// page stays empty) when its sequence has `length` tokens.
RQ_HOST_DEVICE constexpr int32_t PackedEnd(int32_t length, int32_t window,
                                           int32_t block_tokens,
                                           int32_t packed_floor) {
  const int32_t left = length > window ? length - window : 0;
  const int32_t packed = left > packed_floor ? left : packed_floor;
  return packed - packed % block_tokens;
}

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_PAGING_SEQUENCE_STEP_H_
