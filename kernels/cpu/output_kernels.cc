#include "kernels/cpu/output_kernels.h"

#include <algorithm>
#include <cstddef>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/output_kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/vector-inl.h"
// After the vectors: it has a header guard per target too.
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ratequant::kv {
namespace HWY_NAMESPACE {

#if RQ_HAS_VECTORS

using D = WideTag;
using V = hn::Vec<D>;

constexpr int kLanes = NumLanes(D());
constexpr int kBlockRows = 4;
constexpr float kHidden = -std::numeric_limits<float>::infinity();

static_assert(kOutputRows % kBlockRows == 0);
static_assert(kOutputRows % (2 * kLanes) == 0);

void Multiply(const float* rows, int dim, const float* columns, int stride,
              int count, float* out) {
  const D d;
  for (int s = 0; s < count; s += 2 * kLanes) {
    for (int r = 0; r < kOutputRows; r += kBlockRows) {
      const float* const q = rows + static_cast<size_t>(r) * dim;
      V a0 = hn::Zero(d), a1 = a0, b0 = a0, b1 = a0;
      V c0 = a0, c1 = a0, e0 = a0, e1 = a0;
      for (int c = 0; c < dim; ++c) {
        const float* const column = columns + static_cast<size_t>(c) * stride;
        const V x0 = hn::LoadU(d, column + s);
        const V x1 = hn::LoadU(d, column + s + kLanes);
        const V qa = hn::Set(d, q[c]);
        const V qb = hn::Set(d, q[dim + c]);
        const V qc = hn::Set(d, q[2 * dim + c]);
        const V qe = hn::Set(d, q[3 * dim + c]);
        a0 = hn::MulAdd(qa, x0, a0);
        a1 = hn::MulAdd(qa, x1, a1);
        b0 = hn::MulAdd(qb, x0, b0);
        b1 = hn::MulAdd(qb, x1, b1);
        c0 = hn::MulAdd(qc, x0, c0);
        c1 = hn::MulAdd(qc, x1, c1);
        e0 = hn::MulAdd(qe, x0, e0);
        e1 = hn::MulAdd(qe, x1, e1);
      }
      float* const to = out + static_cast<size_t>(r) * stride + s;
      hn::StoreU(a0, d, to);
      hn::StoreU(a1, d, to + kLanes);
      hn::StoreU(b0, d, to + stride);
      hn::StoreU(b1, d, to + stride + kLanes);
      hn::StoreU(c0, d, to + 2 * static_cast<size_t>(stride));
      hn::StoreU(c1, d, to + 2 * static_cast<size_t>(stride) + kLanes);
      hn::StoreU(e0, d, to + 3 * static_cast<size_t>(stride));
      hn::StoreU(e1, d, to + 3 * static_cast<size_t>(stride) + kLanes);
    }
  }
}

// Caps the scores of [begin, end), and of what else is in their vectors.
void CapScores(float cap, int begin, int end, float* scores) {
  if (cap <= 0) return;
  const D d;
  const V factor = hn::Set(d, cap), reciprocal = hn::Set(d, 1.0f / cap);
  for (int s = begin / kLanes * kLanes; s < end; s += kLanes) {
    const V capped = hn::Tanh(d, hn::Mul(hn::LoadU(d, scores + s), reciprocal));
    hn::StoreU(hn::Mul(capped, factor), d, scores + s);
  }
}

V LargestOf(const float* scores, int count) {
  const D d;
  V largest = hn::Set(d, kHidden);
  for (int s = 0; s < count; s += kLanes) {
    largest = hn::Max(largest, hn::LoadU(d, scores + s));
  }
  return hn::MaxOfLanes(d, largest);
}

void PrepareRow(const OutputTile& tile, int row) {
  const D d;
  const VisibleTokens& seen = tile.seen[row];
  const size_t at = static_cast<size_t>(row) * tile.stride;
  float* const scores = tile.scores + at;
  float* const weights = tile.weights + at;
  float* const costs = tile.costs + at;
  CapScores(tile.soft_cap, seen.first, seen.last + 1, scores);
  std::fill(scores, scores + seen.first, kHidden);
  std::fill(scores + seen.last + 1, scores + tile.count, kHidden);
  const V top = LargestOf(scores, tile.count);
  V sum = hn::Zero(d), mean = sum;
  for (int s = 0; s < tile.count; s += kLanes) {
    const V w = hn::Exp(d, hn::Sub(hn::LoadU(d, scores + s), top));
    hn::StoreU(w, d, weights + s);
    sum = hn::Add(sum, w);
    mean = hn::MulAdd(w, hn::LoadU(d, costs + s), mean);
  }
  const V norm = hn::Div(hn::Set(d, 1.0f), hn::SumOfLanes(d, sum));
  mean = hn::Mul(hn::SumOfLanes(d, mean), norm);
  for (int s = 0; s < tile.count; s += kLanes) {
    hn::StoreU(hn::Mul(hn::LoadU(d, weights + s), norm), d, weights + s);
    hn::StoreU(hn::Sub(hn::LoadU(d, costs + s), mean), d, costs + s);
  }
}

void Prepare(const OutputTile& tile) {
  for (int row = 0; row < kOutputRows; ++row) PrepareRow(tile, row);
}

void AddKeyChanges(const OutputTile& tile, float* products, double* changes) {
  const D d;
  for (int row = 0; row < kOutputRows; ++row) {
    const VisibleTokens& seen = tile.seen[row];
    if (!seen.any_quantized()) continue;
    const size_t at = static_cast<size_t>(row) * tile.stride;
    float* const scores = products + at;
    const float* const exact = tile.scores + at;
    const float* const costs = tile.costs + at;
    CapScores(tile.soft_cap, seen.first_quantized, seen.end_quantized, scores);
    std::copy(exact, exact + seen.first_quantized, scores);
    std::copy(exact + seen.end_quantized, exact + tile.count,
              scores + seen.end_quantized);
    const V top = LargestOf(scores, tile.count);
    V sum = hn::Zero(d), change = sum;
    for (int s = 0; s < tile.count; s += kLanes) {
      const V w = hn::Exp(d, hn::Sub(hn::LoadU(d, scores + s), top));
      sum = hn::Add(sum, w);
      change = hn::MulAdd(w, hn::LoadU(d, costs + s), change);
    }
    changes[row] +=
        static_cast<double>(hn::GetLane(hn::SumOfLanes(d, change))) /
        hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

void AddValueChanges(const OutputTile& tile, float* products, double* changes) {
  const D d;
  for (int row = 0; row < kOutputRows; ++row) {
    const VisibleTokens& seen = tile.seen[row];
    if (!seen.any_quantized()) continue;
    const size_t at = static_cast<size_t>(row) * tile.stride;
    float* const costs = products + at;
    const float* const weights = tile.weights + at;
    const int begin = seen.first_quantized / kLanes * kLanes;
    const int end = (seen.end_quantized + kLanes - 1) / kLanes * kLanes;
    std::fill(costs + begin, costs + seen.first_quantized, 0.0f);
    std::fill(costs + seen.end_quantized, costs + end, 0.0f);
    V change = hn::Zero(d);
    for (int s = begin; s < end; s += kLanes) {
      change = hn::MulAdd(hn::LoadU(d, weights + s), hn::LoadU(d, costs + s),
                          change);
    }
    changes[row] += hn::GetLane(hn::SumOfLanes(d, change));
  }
}

const OutputKernels* OutputKernelTable() {
  static constexpr OutputKernels kKernels = {&Multiply, &Prepare,
                                             &AddKeyChanges, &AddValueChanges};
  return &kKernels;
}

#else

const OutputKernels* OutputKernelTable() { return nullptr; }

#endif  // RQ_HAS_VECTORS

}  // namespace HWY_NAMESPACE
}  // namespace ratequant::kv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ratequant::kv {

HWY_EXPORT(OutputKernelTable);

const OutputKernels* GetOutputKernels() {
  return HWY_DYNAMIC_DISPATCH(OutputKernelTable)();
}

}  // namespace ratequant::kv
#endif  // HWY_ONCE
