#include "kernels/reference/reference_attention.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/quantizers/element.h"

namespace ratequant::kv {
namespace {

double At(const ConstHeads& heads, int head, int row, int channel) {
  return LoadElement(
      heads.data, heads.dtype,
      head * heads.head_stride + row * heads.row_stride + channel);
}

}  // namespace

std::vector<double> ReferenceAttention(const AttentionParams& params,
                                       int kv_heads, int head_dim,
                                       const SequenceStep& step,
                                       const ConstHeads& keys,
                                       const ConstHeads& values,
                                       const ConstHeads& queries) {
  std::vector<double> out;
  for (int i = 0; i < step.count; ++i) {
    const int position = step.begin + i;
    const int first = params.sliding_window > 0
                          ? std::max(0, position - params.sliding_window + 1)
                          : 0;
    for (int head = 0; head < params.query_heads; ++head) {
      const int kv_head = head / (params.query_heads / kv_heads);
      std::vector<double> scores;
      for (int t = first; t <= position; ++t) {
        double score = 0;
        for (int c = 0; c < head_dim; ++c) {
          score += At(queries, head, step.first_row + i, c) *
                   At(keys, kv_head, t, c);
        }
        score *= params.softmax_scale;
        if (params.soft_cap > 0) {
          score = params.soft_cap * std::tanh(score / params.soft_cap);
        }
        scores.push_back(score);
      }
      const double max = *std::max_element(scores.begin(), scores.end());
      double sum = 0;
      for (double& score : scores) sum += score = std::exp(score - max);
      for (int c = 0; c < head_dim; ++c) {
        double total = 0;
        for (int t = first; t <= position; ++t) {
          total += scores[t - first] * At(values, kv_head, t, c);
        }
        out.push_back(total / sum);
      }
    }
  }
  return out;
}

}  // namespace ratequant::kv
