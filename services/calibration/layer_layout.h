#ifndef RATEQUANT_SERVICES_CALIBRATION_LAYER_LAYOUT_H_
#define RATEQUANT_SERVICES_CALIBRATION_LAYER_LAYOUT_H_

#include <cstdint>

#include "ratequant/kv/tensor.h"
#include "services/calibration/capture_source.h"
#include "services/calibration/plan.h"

namespace ratequant::calibration {

// How the tensors of one captured layer lie one after the other, without gaps:
// K, V, gradient of K, gradient of V, and with attention_output Q and gradient
// of the output, in the order of TensorChunk.Kind.
class LayerLayout {
 public:
  LayerLayout() = default;
  LayerLayout(const CalibrationPlan& plan, const v1::ModelGeometry& geometry,
              kv::DType dtype)
      : cached_(TensorBytes(geometry, plan.sequence_length, dtype)),
        queried_(cached_ / geometry.kv_heads() * geometry.query_heads()),
        tensors_(plan.attention_output ? 6 : 4) {}

  int tensors() const { return tensors_; }
  uint64_t tensor_bytes(int index) const {
    return index < 4 ? cached_ : queried_;
  }
  // Of tensor `index`; with tensors(), of what follows the layer.
  uint64_t offset(int index) const {
    return index < 4 ? index * cached_ : 4 * cached_ + (index - 4) * queried_;
  }
  uint64_t bytes() const { return offset(tensors_); }

  // The tensor that byte `at`, below bytes(), belongs to.
  int TensorAt(uint64_t at) const {
    int index = 0;
    while (offset(index + 1) <= at) ++index;
    return index;
  }

  // Points to the tensors of a layer that begins at `base`.
  void Place(const uint8_t* base, CapturedLayer& layer) const {
    layer.key = base + offset(0);
    layer.value = base + offset(1);
    layer.key_gradient = base + offset(2);
    layer.value_gradient = base + offset(3);
    if (tensors_ < 6) return;
    layer.query = base + offset(4);
    layer.output_gradient = base + offset(5);
  }

 private:
  uint64_t cached_ = 0;   // bytes of [kv_heads, sequence_length, head_dim]
  uint64_t queried_ = 0;  // bytes of [query_heads, sequence_length, head_dim]
  int tensors_ = 0;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_LAYER_LAYOUT_H_
