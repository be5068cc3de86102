#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "hwy/aligned_allocator.h"
#include "kernels/cpu/output_kernels.h"
#include "kernels/quantizers/attention_backend.h"
#include "kernels/quantizers/element.h"
#include "kernels/quantizers/group_decoder.h"
#include "kernels/quantizers/worker_pool.h"
#include "kernels/reference/reference_attention_backend.h"

namespace ratequant::kv {
namespace {

// Of decoded rows that are kept at a time: more than one pair's is taken only
// below it. The exact attention is computed again for every part.
constexpr size_t kDecodedBytes = size_t{64} << 20;

using Floats = hwy::AlignedFreeUniquePtr<float[]>;

// [tokens, dim] of one head.
Floats LoadHead(const void* data, const AttentionCapture& capture, int dim,
                int head) {
  const size_t count = static_cast<size_t>(capture.tokens) * dim;
  Floats rows = hwy::AllocateAligned<float>(count);
  for (size_t i = 0; i < count; ++i) {
    rows[i] = LoadElement(data, capture.dtype,
                          static_cast<int64_t>(head * count + i));
  }
  return rows;
}

// columns[dim][tokens] = rows[tokens][dim] - base; base may be null.
void Transpose(const float* rows, const float* base, int tokens, int dim,
               float* columns) {
  for (int t = 0; t < tokens; ++t) {
    const size_t at = static_cast<size_t>(t) * dim;
    for (int c = 0; c < dim; ++c) {
      columns[static_cast<size_t>(c) * tokens + t] =
          base == nullptr ? rows[at + c] : rows[at + c] - base[at + c];
    }
  }
}

class SimdAttentionBackend final : public AttentionBackend {
 public:
  SimdAttentionBackend(const DistortionSweep::Options& options,
                       const OutputKernels& kernels, GroupDecoder keys,
                       GroupDecoder values)
      : options_(options),
        kernels_(kernels),
        keys_(std::move(keys)),
        values_(std::move(values)),
        pool_(options.threads) {}

  absl::StatusOr<std::vector<double>> Measure(
      const AttentionCapture& capture) override;

 private:
  // One KV head of a capture. K and V are also there with a column a token.
  struct Head {
    const AttentionCapture& capture;
    int index = 0;
    Floats keys;           // [tokens, dim]
    Floats values;         // [tokens, dim]
    Floats key_columns;    // [dim, tokens]
    Floats value_columns;  // [dim, tokens]
  };
  // Decoded pairs [first, first + count), of K's and then V's.
  struct Part {
    int first = 0;
    int count = 0;
    Floats columns;  // [count][dim][tokens]; of V less the exact ones
  };
  struct Workspace;

  Head LoadKeysAndValues(const AttentionCapture& capture, int index) const;
  absl::Status DecodePart(const Head& head, Part& part);
  void LoadRows(const void* data, const Head& head, int query_head, int first,
                float scale, float* rows) const;
  void MeasureTile(const Head& head, const Part& part, int first,
                   double* sums) const;
  void AddHeadChanges(const Head& head, const Part& part, int query_head,
                      int first, Workspace& work) const;

  int pairs() const { return keys_.size() + values_.size(); }

  const DistortionSweep::Options options_;
  const OutputKernels& kernels_;
  const GroupDecoder keys_;
  const GroupDecoder values_;
  WorkerPool pool_;
};

// What one thread needs for a tile.
struct SimdAttentionBackend::Workspace {
  Workspace(int dim, int tokens, int pairs)
      : rows(hwy::AllocateAligned<float>(2 * size_t{kOutputRows} * dim)),
        matrices(hwy::AllocateAligned<float>(4 * size_t{kOutputRows} * tokens)),
        changes(static_cast<size_t>(pairs) * kOutputRows) {}

  Floats rows;                  // Q, scaled, and the output's gradient
  Floats matrices;              // scores, weights, costs, products
  std::vector<double> changes;  // [pairs][kOutputRows]
};

SimdAttentionBackend::Head SimdAttentionBackend::LoadKeysAndValues(
    const AttentionCapture& capture, int index) const {
  const int dim = options_.head_dim;
  const size_t count = static_cast<size_t>(capture.tokens) * dim;
  Head head = {capture,
               index,
               LoadHead(capture.keys, capture, dim, index),
               LoadHead(capture.values, capture, dim, index),
               hwy::AllocateAligned<float>(count),
               hwy::AllocateAligned<float>(count)};
  Transpose(head.keys.get(), nullptr, capture.tokens, dim,
            head.key_columns.get());
  Transpose(head.values.get(), nullptr, capture.tokens, dim,
            head.value_columns.get());
  return head;
}

absl::Status SimdAttentionBackend::DecodePart(const Head& head, Part& part) {
  const int dim = options_.head_dim, tokens = head.capture.tokens;
  const size_t count = static_cast<size_t>(tokens) * dim;
  std::vector<absl::Status> statuses(part.count);
  pool_.Run(part.count, [&](int i) {
    const int pair = part.first + i;
    const bool is_key = pair < keys_.size();
    const GroupDecoder& decoder = is_key ? keys_ : values_;
    const float* const exact = is_key ? head.keys.get() : head.values.get();
    std::vector<float> decoded(count);
    statuses[i] = decoder.Decode(is_key ? pair : pair - keys_.size(),
                                 {exact, DType::kFloat32, dim}, tokens,
                                 absl::MakeSpan(decoded));
    if (!statuses[i].ok()) return;
    Transpose(decoded.data(), is_key ? nullptr : exact, tokens, dim,
              part.columns.get() + i * count);
  });
  for (const absl::Status& status : statuses) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void SimdAttentionBackend::LoadRows(const void* data, const Head& head,
                                    int query_head, int first, float scale,
                                    float* rows) const {
  const int dim = options_.head_dim;
  const int64_t at = (int64_t{query_head} * head.capture.tokens + first) * dim;
  for (int i = 0; i < kOutputRows * dim; ++i) {
    rows[i] = scale * LoadElement(data, head.capture.dtype, at + i);
  }
}

void SimdAttentionBackend::AddHeadChanges(const Head& head, const Part& part,
                                          int query_head, int first,
                                          Workspace& work) const {
  const AttentionCapture& capture = head.capture;
  const int dim = options_.head_dim, tokens = capture.tokens;
  const size_t matrix = size_t{kOutputRows} * tokens;
  float* const queries = work.rows.get();
  float* const gradients = queries + kOutputRows * dim;
  LoadRows(capture.queries, head, query_head, first,
           capture.params.softmax_scale, queries);
  LoadRows(capture.output_gradients, head, query_head, first, 1.0f, gradients);

  VisibleTokens seen[kOutputRows];
  const TokenView view = ViewOf(options_, capture.params);
  for (int row = 0; row < kOutputRows; ++row) {
    seen[row] = TokensSeenBy(first + row, view);
  }
  float* const scores = work.matrices.get();
  const OutputTile tile = {
      seen,   tokens,          first + kOutputRows, capture.params.soft_cap,
      scores, scores + matrix, scores + 2 * matrix};
  float* const products = scores + 3 * matrix;
  kernels_.multiply(queries, dim, head.key_columns.get(), tokens, tile.count,
                    tile.scores);
  kernels_.multiply(gradients, dim, head.value_columns.get(), tokens,
                    tile.count, tile.costs);
  kernels_.prepare(tile);

  // Beyond it nothing of the tile is quantized.
  const int end = seen[kOutputRows - 1].end_quantized;
  const int columns = (end + kOutputRows - 1) / kOutputRows * kOutputRows;
  for (int i = 0; i < part.count; ++i) {
    const bool is_key = part.first + i < keys_.size();
    kernels_.multiply(
        is_key ? queries : gradients, dim,
        part.columns.get() + static_cast<size_t>(i) * dim * tokens, tokens,
        columns, products);
    (is_key ? kernels_.add_key_changes : kernels_.add_value_changes)(
        tile, products, &work.changes[static_cast<size_t>(i) * kOutputRows]);
  }
}

void SimdAttentionBackend::MeasureTile(const Head& head, const Part& part,
                                       int first, double* sums) const {
  const TokenView view = ViewOf(options_, head.capture.params);
  if (!TokensSeenBy(first + kOutputRows - 1, view).any_quantized()) return;
  Workspace work(options_.head_dim, head.capture.tokens, part.count);
  const int share = options_.query_heads / options_.kv_heads;
  for (int j = 0; j < share; ++j) {
    AddHeadChanges(head, part, head.index * share + j, first, work);
  }
  for (int i = 0; i < part.count; ++i) {
    for (int row = 0; row < kOutputRows; ++row) {
      const double change =
          work.changes[static_cast<size_t>(i) * kOutputRows + row];
      sums[i] += change * change;
    }
  }
}

absl::StatusOr<std::vector<double>> SimdAttentionBackend::Measure(
    const AttentionCapture& capture) {
  const int tiles = capture.tokens / kOutputRows;
  const size_t pair_floats =
      static_cast<size_t>(capture.tokens) * options_.head_dim;
  const int most = static_cast<int>(std::clamp<size_t>(
      kDecodedBytes / sizeof(float) / pair_floats, 1, pairs()));
  std::vector<double> sums(static_cast<size_t>(options_.kv_heads) * pairs());
  Part part;
  part.columns = hwy::AllocateAligned<float>(most * pair_floats);
  for (int index = 0; index < options_.kv_heads; ++index) {
    const Head head = LoadKeysAndValues(capture, index);
    for (part.first = 0; part.first < pairs(); part.first += part.count) {
      part.count = std::min(most, pairs() - part.first);
      const absl::Status decoded = DecodePart(head, part);
      if (!decoded.ok()) return decoded;
      std::vector<double> partials(static_cast<size_t>(tiles) * part.count);
      pool_.Run(tiles, [&](int tile) {
        MeasureTile(head, part, tile * kOutputRows,
                    &partials[static_cast<size_t>(tile) * part.count]);
      });
      // Always in the order of the tiles, whatever thread measured them.
      double* const out =
          &sums[static_cast<size_t>(index) * pairs() + part.first];
      for (size_t i = 0; i < partials.size(); ++i) {
        out[i % part.count] += partials[i];
      }
    }
  }
  return sums;
}

}  // namespace

absl::StatusOr<std::unique_ptr<AttentionBackend>> MakeCpuAttentionBackend(
    const DistortionSweep::Options& options) {
  auto keys = GroupDecoder::Create(options, Tensor::kKey);
  if (!keys.ok()) return keys.status();
  auto values = GroupDecoder::Create(options, Tensor::kValue);
  if (!values.ok()) return values.status();
  const OutputKernels* const kernels = GetOutputKernels();
  if (options.backend == Backend::kSimd && kernels != nullptr) {
    return std::make_unique<SimdAttentionBackend>(
        options, *kernels, *std::move(keys), *std::move(values));
  }
  return std::make_unique<ReferenceAttentionBackend>(options, *std::move(keys),
                                                     *std::move(values));
}

}  // namespace ratequant::kv
