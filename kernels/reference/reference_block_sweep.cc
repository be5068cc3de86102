#include "kernels/reference/reference_block_sweep.h"

#include <algorithm>
#include <vector>

#include "kernels/quantizers/element.h"
#include "kernels/quantizers/sweep/registry-inl.h"
#include "kernels/quantizers/sweep/sums.h"
#include "kernels/reference/scalar_row.h"

namespace ratequant::kv {
namespace {

std::vector<float> LoadBlock(const void* data, DType dtype, size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = LoadElement(data, dtype, i);
  return values;
}

// The block as one quantizer sees it.
class BlockRows {
 public:
  BlockRows(const SweepBlock& block, int dim, const std::vector<int>& widths)
      : block_(block),
        dim_(dim),
        widths_(widths),
        x_(LoadBlock(block.values, block.dtype,
                     size_t{1} * block.tokens * dim)),
        y_(LoadBlock(block.gradients, block.dtype, x_.size())) {}

  const std::vector<float>& x() const { return x_; }
  const std::vector<float>& y() const { return y_; }

  template <class Quantizer>
  void Measure(const QuantizerSpec& spec, ErrorSums* sums) const {
    const int group = Quantizer::ColumnTokens(spec, block_.tensor);
    for (int t = block_.skip_tokens; t < block_.tokens; ++t) {
      ScalarRow row(spec, block_.tensor, widths_, dim_, &x_[size_t(t) * dim_],
                    &y_[size_t(t) * dim_], sums);
      if (group > 0) {
        MeasureColumns<typename Quantizer::ColumnGrid>(t / group * group, group,
                                                       row);
      } else {
        Quantizer::MeasureRow(row, spec);
      }
    }
  }

 private:
  // A row of the tokens [first, first + count) that share grids.
  template <class Grid>
  void MeasureColumns(int first, int count, ScalarRow& row) const {
    const int start = std::max(first, block_.skip_tokens);
    for (size_t w = 0; w < widths_.size(); ++w) {
      row.MeasureEach(static_cast<int>(w), [&](int channel) {
        return sweep::GridMap<Grid, ScalarRow>(
            ColumnRange(start, first + count, channel), widths_[w]);
      });
    }
  }

  sweep::ValueRange ColumnRange(int start, int end, int channel) const {
    sweep::ValueRange range = {x_[size_t(start) * dim_ + channel],
                               x_[size_t(start) * dim_ + channel]};
    for (int t = start + 1; t < end; ++t) {
      range.low = std::min(range.low, x_[size_t(t) * dim_ + channel]);
      range.high = std::max(range.high, x_[size_t(t) * dim_ + channel]);
    }
    return range;
  }

  const SweepBlock& block_;
  const int dim_;
  const std::vector<int>& widths_;
  const std::vector<float> x_;  // [tokens, dim]
  const std::vector<float> y_;
};

}  // namespace

void ReferenceBlockSweep::Run(const SweepBlock& block,
                              absl::Span<double> sums) const {
  const BlockRows rows(block, options_.head_dim, options_.widths);
  std::fill(sums.begin(), sums.end(), 0.0);
  for (size_t i = size_t{1} * block.skip_tokens * options_.head_dim;
       i < rows.x().size(); ++i) {
    sums[0] += static_cast<double>(rows.y()[i]) * rows.y()[i];
    sums[1] += static_cast<double>(rows.x()[i]) * rows.x()[i];
  }
  double* pair = &sums[SweepSums::kPerGroup];
  for (const QuantizerSpec& spec : options_.quantizers) {
    std::vector<ErrorSums> errors(options_.widths.size());
    sweep::SweepQuantizers::Visit(spec.kind, [&]<class Quantizer>(Quantizer) {
      rows.Measure<Quantizer>(spec, errors.data());
    });
    for (const ErrorSums& error : errors) {
      *pair++ = error.square;
      *pair++ = error.weighted;
      *pair++ = error.projection;
    }
  }
}

}  // namespace ratequant::kv
