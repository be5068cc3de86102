#ifndef RATEQUANT_SERVICES_CALIBRATION_CAPTURE_SOURCE_H_
#define RATEQUANT_SERVICES_CALIBRATION_CAPTURE_SOURCE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "ratequant/kv/attention.h"
#include "ratequant/kv/tensor.h"
#include "ratequant/v1/calibration.pb.h"
#include "ratequant/v1/model.pb.h"

namespace ratequant::calibration {

// What a capture will deliver.
struct CaptureShape {
  v1::ModelGeometry geometry;  // within the limits of plan.h
  kv::DType dtype = kv::DType::kFloat32;
};

// One layer of one sequence. The tensors are [kv_heads, sequence_length,
// head_dim], dense, of CaptureShape::dtype, and owned by the source.
struct CapturedLayer {
  uint32_t sequence = 0;
  uint32_t layer = 0;
  const void* key = nullptr;
  const void* value = nullptr;
  const void* key_gradient = nullptr;
  const void* value_gradient = nullptr;
  // With attention_output: [query_heads, sequence_length, head_dim], and what
  // attention of this layer computes. Else null.
  const void* query = nullptr;
  const void* output_gradient = nullptr;
  kv::AttentionParams attention;
};

// Where K, V and their gradients come from. A source delivers every layer of
// every sequence of its plan exactly once, sequences ascending, layers of a
// sequence in any order, or fails with the error the client gets. Destroying it
// at any point frees everything it holds. Thread-compatible; all calls on one
// thread.
class CaptureSource {
 public:
  virtual ~CaptureSource() = default;

  // Waits until the shape is known. Called once, before anything else.
  virtual absl::StatusOr<CaptureShape> Open() = 0;

  // Waits for the next layer; empty after the last. What the previous call
  // returned is released. Not called again after an error or the end.
  virtual absl::StatusOr<absl::optional<CapturedLayer>> Next() = 0;

  // Provenance to store with the calibration, complete once Next has returned
  // the end.
  virtual v1::CaptureInfo Info() const = 0;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_CAPTURE_SOURCE_H_
