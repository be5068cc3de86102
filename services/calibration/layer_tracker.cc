#include "services/calibration/layer_tracker.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace ratequant::calibration {

LayerTracker::LayerTracker(uint32_t sequences, uint32_t layers)
    : sequences_(sequences), seen_(layers, false) {}

absl::Status LayerTracker::Begin(uint32_t sequence, uint32_t layer) {
  if (sequence >= sequences_) {
    return absl::OutOfRangeError(
        absl::StrCat("sequence ", sequence, " of ", sequences_, " (from 0)"));
  }
  if (layer >= seen_.size()) {
    return absl::OutOfRangeError(
        absl::StrCat("layer ", layer, " of ", seen_.size(), " (from 0)"));
  }
  if (sequence != sequence_) {
    return absl::FailedPreconditionError(absl::StrCat(
        "layer ", layer, " of sequence ", sequence, " while sequence ",
        sequence_, " has ", seen_count_, " of ", seen_.size(), " layers"));
  }
  if (seen_[layer]) {
    return absl::FailedPreconditionError(absl::StrCat(
        "layer ", layer, " of sequence ", sequence, " for the second time"));
  }
  seen_[layer] = true;
  ++seen_count_;
  return absl::OkStatus();
}

absl::Status LayerTracker::EndSequence(uint32_t sequence) {
  if (sequence != sequence_ || !sequence_full()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the end of sequence ", sequence, " while sequence ", sequence_,
        " has ", seen_count_, " of ", seen_.size(), " layers"));
  }
  ++sequence_;
  seen_count_ = 0;
  std::fill(seen_.begin(), seen_.end(), false);
  return absl::OkStatus();
}

}  // namespace ratequant::calibration
