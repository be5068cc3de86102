#ifndef RATEQUANT_KERNELS_CUDA_TASK_H_
#define RATEQUANT_KERNELS_CUDA_TASK_H_

#include <cstdint>

#include "kernels/cuda/status.h"
#include "kernels/quantizers/host_device.h"

namespace ratequant::kv::cuda {

// One launch works through a table of tasks in device memory, each a range of
// rows of one section: all heads of a layer, K and V, whatever their formats.

// Rows [first, first + count) of a page to encode.
struct EncodeTask {
  uint8_t* section = nullptr;  // multiple of 16; SectionLayout::section_bytes
  const void* rows = nullptr;  // [count, head_dim], multiple of 16 bytes
  int32_t format = 0;          // index into the launch's FormatTable
  int32_t first = 0;           // row of the page, multiple of the granule
  int32_t count = 0;           // multiple of the granule
  int32_t skip_tokens = 0;     // rows of the page below it are sinks
};

// Rows [first, first + count) of a page to decode.
struct DecodeTask {
  const uint8_t* section = nullptr;  // multiple of 16
  void* rows = nullptr;              // [count, head_dim], multiple of 16 bytes
  int32_t format = 0;                // index into the launch's FormatTable
  int32_t first = 0;
  int32_t count = 0;
  const float* mean = nullptr;  // [head_dim], added to every row; null: none
};

// The first fault that a launch met, by task, row and channel, whatever the
// order its threads ran in: a word in device memory that the caller sets to
// kNoFault before, and reads when the stream has got past the launch. Several
// launches may share one.
using FaultWord = unsigned long long;
inline constexpr FaultWord kNoFault = ~0ull;

enum class Fault : uint32_t {
  // Values that fp16 can't hold. The rows' bytes in the section are unspecified
  // then, others untouched.
  kNan = 0,
  kInfinity = 1,
  kNegativeInfinity = 2,
  kTooLarge = 3,
  // Tasks that aren't possible. Nothing is written for them.
  kFormat = 8,    // no such format
  kRange = 9,     // rows outside the page, or more than the launch allows
  kGranule = 10,  // not whole groups of tokens
  kPointer = 11,  // null, or not a multiple of 16
};

// What a fault word can tell apart: tasks of a launch, rows of a task.
inline constexpr int kMaxFaultTasks = 1 << 28;
inline constexpr int kMaxFaultRows = 1 << 20;

// task: 28 bits, row: 20, channel: 12, fault: 4.
RQ_HOST_DEVICE constexpr FaultWord MakeFaultWord(uint32_t task, uint32_t row,
                                                 uint32_t channel,
                                                 Fault fault) {
  return static_cast<FaultWord>(task) << 36 |
         static_cast<FaultWord>(row) << 16 | channel << 4 |
         static_cast<uint32_t>(fault);
}

// What a fault word says. `word` isn't kNoFault.
struct FaultPlace {
  uint32_t task = 0;
  uint32_t row = 0;
  uint32_t channel = 0;
  Fault fault = Fault::kNan;
};
FaultPlace PlaceOfFault(FaultWord word);

// OK for kNoFault; else DATA_LOSS or INVALID_ARGUMENT naming task, row and
// channel.
Status StatusOfFault(FaultWord word);

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_TASK_H_
