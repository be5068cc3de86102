#ifndef RATEQUANT_SERVICES_CALIBRATION_LAYER_TRACKER_H_
#define RATEQUANT_SERVICES_CALIBRATION_LAYER_TRACKER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace ratequant::calibration {

// Checks the order layers come in: sequences ascending, every layer of a
// sequence once, in any order. Thread-compatible.
class LayerTracker {
 public:
  // Counts are at least 1.
  LayerTracker(uint32_t sequences, uint32_t layers);

  // Notes that a layer begins. OUT_OF_RANGE for a sequence or layer that
  // doesn't exist; FAILED_PRECONDITION for one out of order or seen before.
  // Nothing is noted then.
  absl::Status Begin(uint32_t sequence, uint32_t layer);

  // Ends the current sequence. FAILED_PRECONDITION when it isn't `sequence` or
  // has layers left.
  absl::Status EndSequence(uint32_t sequence);

  // The sequence that layers are expected of; the number of sequences when all
  // are there.
  uint32_t sequence() const { return sequence_; }
  // Whether all layers of the current sequence have begun.
  bool sequence_full() const { return seen_count_ == seen_.size(); }
  bool complete() const { return sequence_ == sequences_; }

 private:
  const uint32_t sequences_;
  uint32_t sequence_ = 0;
  uint32_t seen_count_ = 0;
  std::vector<bool> seen_;  // [layers] of the current sequence
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_LAYER_TRACKER_H_
