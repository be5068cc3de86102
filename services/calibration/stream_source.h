#ifndef RATEQUANT_SERVICES_CALIBRATION_STREAM_SOURCE_H_
#define RATEQUANT_SERVICES_CALIBRATION_STREAM_SOURCE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "ratequant/v1/calibration_service.pb.h"
#include "services/calibration/capture_source.h"
#include "services/calibration/layer_layout.h"
#include "services/calibration/layer_tracker.h"
#include "services/calibration/plan.h"

namespace ratequant::calibration {

// Delivers the next chunk of a stream, empty at its end; errors are passed on.
using ChunkReader =
    std::function<absl::StatusOr<absl::optional<v1::CalibrateChunk>>()>;

// The header of a stream, checked. Errors: HEADER_MISSING when the first chunk
// isn't one or the stream is empty; the reader's.
absl::StatusOr<v1::CalibrateHeader> ReadHeader(const ChunkReader& read);

// Assembles layers from the chunks of CalibrateStream; holds one layer in
// memory. Errors, all INVALID_ARGUMENT: WRONG_SHAPE for a sequence, layer or
// byte that doesn't exist, and for a tensor that is too short;
// CHUNK_OUT_OF_ORDER for a gap, a repetition or another order than the
// service's contract; STREAM_INCOMPLETE when the stream ends early.
class StreamSource : public CaptureSource {
 public:
  // `header` has been read; `read` delivers what follows it.
  StreamSource(const CalibrationPlan& plan, v1::CalibrateHeader header,
               ChunkReader read);

  // INVALID_ARGUMENT: UNSUPPORTED_SHAPE, or INVALID_ARGUMENT for a dtype,
  // digest or loss in the header that makes no sense. FAILED_PRECONDITION
  // MEMORY_LIMIT_EXCEEDED.
  absl::StatusOr<CaptureShape> Open() override;
  absl::StatusOr<absl::optional<CapturedLayer>> Next() override;
  v1::CaptureInfo Info() const override;

 private:
  absl::Status ReadAttention();
  absl::StatusOr<absl::optional<v1::TensorChunk>> ReadTensor();
  absl::Status ReadLayer(v1::TensorChunk first);
  absl::Status Take(const v1::TensorChunk& chunk);
  absl::Status CheckPlace(const v1::TensorChunk& chunk) const;
  absl::Status Incomplete() const;
  std::string Position() const;
  bool layer_full() const { return filled_ == layout_.bytes(); }
  // The tensor that the next byte belongs to, and its place in it.
  int current() const { return layout_.TensorAt(filled_); }
  uint64_t position() const { return filled_ - layout_.offset(current()); }

  const CalibrationPlan plan_;
  const v1::CalibrateHeader header_;
  const ChunkReader read_;
  CaptureShape shape_;
  std::unique_ptr<LayerTracker> layers_;
  LayerLayout layout_;
  std::vector<kv::AttentionParams> attention_;  // [layers], or empty
  std::unique_ptr<uint8_t[]> layer_;            // [layout_.bytes()]
  uint64_t filled_ = 0;  // bytes of layer_ that have arrived
  uint32_t layer_index_ = 0;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_STREAM_SOURCE_H_
