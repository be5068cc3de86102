#include "kernels/reference/reference_attention_backend.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/quantizers/element.h"

namespace ratequant::kv {
namespace {

using Rows = std::vector<float>;  // [tokens, head_dim]

Rows HeadRows(const void* data, const AttentionCapture& capture, int dim,
              int head) {
  const size_t count = size_t(capture.tokens) * dim;
  Rows rows(count);
  for (size_t i = 0; i < count; ++i) {
    rows[i] = LoadElement(data, capture.dtype,
                          static_cast<int64_t>(head * count + i));
  }
  return rows;
}

// One KV head and what it is replaced by where a query takes decoded tokens.
struct Head {
  const Rows& keys;
  const Rows& values;
  const Rows& decoded_keys;
  const Rows& decoded_values;
};

const float* RowOf(const Rows& rows, int token, int dim) {
  return &rows[size_t(token) * dim];
}

// The output for query `q` [dim] at `seen.last`. `quantized`: with the decoded
// rows where there are such.
std::vector<double> Attend(const AttentionParams& params, const Head& head,
                           const VisibleTokens& seen, bool quantized,
                           const float* q, int dim) {
  const auto decoded = [&](int s) {
    return quantized && s >= seen.first_quantized && s < seen.end_quantized;
  };
  std::vector<double> scores;
  for (int s = seen.first; s <= seen.last; ++s) {
    const float* k = RowOf(decoded(s) ? head.decoded_keys : head.keys, s, dim);
    double score = 0;
    for (int c = 0; c < dim; ++c) score += static_cast<double>(q[c]) * k[c];
    score *= params.softmax_scale;
    if (params.soft_cap > 0) {
      score = params.soft_cap * std::tanh(score / params.soft_cap);
    }
    scores.push_back(score);
  }
  const double max = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& score : scores) sum += score = std::exp(score - max);
  std::vector<double> out(dim);
  for (int s = seen.first; s <= seen.last; ++s) {
    const float* v =
        RowOf(decoded(s) ? head.decoded_values : head.values, s, dim);
    for (int c = 0; c < dim; ++c) out[c] += scores[s - seen.first] / sum * v[c];
  }
  return out;
}

}  // namespace

absl::StatusOr<std::vector<double>> ReferenceAttentionBackend::Measure(
    const AttentionCapture& capture) {
  const int dim = options_.head_dim;
  const int share = options_.query_heads / options_.kv_heads;
  std::vector<double> sums;
  for (int head = 0; head < options_.kv_heads; ++head) {
    const Rows keys = HeadRows(capture.keys, capture, dim, head);
    const Rows values = HeadRows(capture.values, capture, dim, head);
    std::vector<Rows> queries, gradients;
    for (int j = 0; j < share; ++j) {
      queries.push_back(
          HeadRows(capture.queries, capture, dim, head * share + j));
      gradients.push_back(
          HeadRows(capture.output_gradients, capture, dim, head * share + j));
    }
    for (const GroupDecoder* decoder : {&keys_, &values_}) {
      const bool is_key = decoder == &keys_;
      for (int pair = 0; pair < decoder->size(); ++pair) {
        Rows decoded(keys.size());
        const Rows& rows = is_key ? keys : values;
        const absl::Status status =
            decoder->Decode(pair, {rows.data(), DType::kFloat32, dim},
                            capture.tokens, absl::MakeSpan(decoded));
        if (!status.ok()) return status;
        const Head replaced = {keys, values, is_key ? decoded : keys,
                               is_key ? values : decoded};
        double sum = 0;
        for (int t = options_.sink_tokens; t < capture.tokens; ++t) {
          const VisibleTokens seen =
              TokensSeenBy(t, ViewOf(options_, capture.params));
          double change = 0;
          for (int j = 0; j < share; ++j) {
            const float* q = RowOf(queries[j], t, dim);
            const float* y = RowOf(gradients[j], t, dim);
            const auto exact =
                Attend(capture.params, replaced, seen, false, q, dim);
            const auto other =
                Attend(capture.params, replaced, seen, true, q, dim);
            for (int c = 0; c < dim; ++c)
              change += y[c] * (other[c] - exact[c]);
          }
          sum += change * change;
        }
        sums.push_back(sum);
      }
    }
  }
  return sums;
}

}  // namespace ratequant::kv
