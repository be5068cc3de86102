#ifndef RATEQUANT_TESTS_CUDA_ON_CPU_WARP_H_
#define RATEQUANT_TESTS_CUDA_ON_CPU_WARP_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "tests/cuda_on_cpu/warp_builtins.h"

namespace cuda_on_cpu {

// Where the lanes of one mask meet, again and again. Slots are kept for two
// meetings: a lane reads the first one's while others come to the second.
struct WarpMeeting {
  unsigned mask = 0;
  unsigned arrived = 0;
  WarpOp op = WarpOp::kSync;
  uint32_t generation = 0;
  WarpSlot slots[2][kWarpSize];
  char order[2] = {0, 0};  // points of Acquire and Release
};

// One warp of a block.
class Warp {
 public:
  // A new block: lanes from `lanes` on don't exist.
  void Reset(unsigned lanes);

  // Lanes that have ended or don't exist.
  unsigned ended() const { return ended_; }
  void EndLane(unsigned lane) { ended_ |= 1u << lane; }

  WarpMeeting& MeetingOf(unsigned mask);

 private:
  unsigned ended_ = 0;
  std::vector<std::unique_ptr<WarpMeeting>> meetings_;  // one a mask
};

}  // namespace cuda_on_cpu

#endif  // RATEQUANT_TESTS_CUDA_ON_CPU_WARP_H_
