#include "tests/cuda_on_cpu/warp.h"

namespace cuda_on_cpu {

void Warp::Reset(unsigned lanes) {
  ended_ = lanes >= kWarpSize ? 0 : ~0u << lanes;
  for (const auto& meeting : meetings_) meeting->arrived = 0;
}

WarpMeeting& Warp::MeetingOf(unsigned mask) {
  for (const auto& meeting : meetings_) {
    if (meeting->mask == mask) return *meeting;
  }
  meetings_.push_back(std::make_unique<WarpMeeting>());
  meetings_.back()->mask = mask;
  return *meetings_.back();
}

}  // namespace cuda_on_cpu
