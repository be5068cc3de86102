#include "services/calibration/mean_removal.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "kernels/quantizers/element.h"

namespace ratequant::calibration {
namespace {

void ToFloats(const void* from, kv::DType dtype, std::vector<float>& to) {
  for (size_t i = 0; i < to.size(); ++i) {
    to[i] = kv::LoadElement(from, dtype, static_cast<int64_t>(i));
  }
}

}  // namespace

MeanRemoval::MeanRemoval(const v1::ModelGeometry& geometry, uint32_t tokens,
                         uint32_t sink_tokens, kv::DType dtype)
    : heads_(geometry.kv_heads()),
      tokens_(tokens),
      sink_tokens_(sink_tokens),
      head_dim_(geometry.head_dim()),
      dtype_(dtype),
      means_(size_t{2} * geometry.layers() * heads_ * head_dim_),
      fitted_(size_t{2} * geometry.layers()),
      values_(size_t{heads_} * tokens * head_dim_),
      gradients_(values_.size()) {}

MeanRemoval::Centred MeanRemoval::Apply(uint32_t layer, kv::Tensor tensor,
                                        const void* values,
                                        const void* gradients) {
  ToFloats(values, dtype_, values_);
  ToFloats(gradients, dtype_, gradients_);
  const bool finite = std::all_of(values_.begin(), values_.end(),
                                  [](float x) { return std::isfinite(x); });
  if (!finite) return {values_.data(), gradients_.data()};
  const size_t index = size_t{2} * layer + static_cast<size_t>(tensor);
  if (!fitted_[index]) Fit(layer, tensor);
  fitted_[index] = true;
  float* row = values_.data();
  for (uint32_t head = 0; head < heads_; ++head) {
    const float* const mean = Mean(layer, head, tensor);
    for (uint32_t t = 0; t < tokens_; ++t, row += head_dim_) {
      for (uint32_t c = 0; c < head_dim_; ++c) row[c] -= mean[c];
    }
  }
  return {values_.data(), gradients_.data()};
}

void MeanRemoval::Fit(uint32_t layer, kv::Tensor tensor) {
  std::vector<double> sums(head_dim_);
  for (uint32_t head = 0; head < heads_; ++head) {
    std::fill(sums.begin(), sums.end(), 0.0);
    const float* row =
        values_.data() + (size_t{head} * tokens_ + sink_tokens_) * head_dim_;
    for (uint32_t t = sink_tokens_; t < tokens_; ++t, row += head_dim_) {
      for (uint32_t c = 0; c < head_dim_; ++c) sums[c] += row[c];
    }
    float* const mean = Mean(layer, head, tensor);
    for (uint32_t c = 0; c < head_dim_; ++c) {
      mean[c] = static_cast<float>(sums[c] / (tokens_ - sink_tokens_));
    }
  }
}

float* MeanRemoval::Mean(uint32_t layer, uint32_t head, kv::Tensor tensor) {
  const size_t group =
      (size_t{layer} * heads_ + head) * 2 + static_cast<size_t>(tensor);
  return means_.data() + group * head_dim_;
}

}  // namespace ratequant::calibration
