#ifndef RATEQUANT_SERVICES_CALIBRATION_MEAN_REMOVAL_H_
#define RATEQUANT_SERVICES_CALIBRATION_MEAN_REMOVAL_H_

#include <cstdint>
#include <vector>

#include "ratequant/kv/tensor.h"
#include "ratequant/v1/model.pb.h"

namespace ratequant::calibration {

// Takes each channel's mean off K and V before they are measured, as a cache
// with means does before it stores them (KvCacheConfig::means). The means are
// those of the first sequence that comes, without its sinks: one pass over the
// capture is enough, and all other sequences measure means that weren't fitted
// on them. Not thread-safe.
class MeanRemoval {
 public:
  // Tensors are [kv_heads, tokens, head_dim] of `dtype`.
  MeanRemoval(const v1::ModelGeometry& geometry, uint32_t tokens,
              uint32_t sink_tokens, kv::DType dtype);

  // fp32, valid until the next call. Gradients are only converted.
  struct Centred {
    const float* values = nullptr;
    const float* gradients = nullptr;
  };

  // Tensor `tensor` of a layer. One with values that aren't finite is only
  // converted, for the sweep to find them.
  Centred Apply(uint32_t layer, kv::Tensor tensor, const void* values,
                const void* gradients);

  // Of all groups, [layers, kv_heads, 2, head_dim].
  const std::vector<float>& means() const { return means_; }

 private:
  void Fit(uint32_t layer, kv::Tensor tensor);
  float* Mean(uint32_t layer, uint32_t head, kv::Tensor tensor);

  const uint32_t heads_, tokens_, sink_tokens_, head_dim_;
  const kv::DType dtype_;
  std::vector<float> means_;
  std::vector<bool> fitted_;  // [layers, 2]
  std::vector<float> values_, gradients_;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_MEAN_REMOVAL_H_
