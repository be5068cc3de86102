#include "kernels/reference/scalar_block.h"

#include <algorithm>
#include <cstddef>

#include "kernels/quantizers/sweep/registry-inl.h"
#include "kernels/quantizers/sweep/sums.h"
#include "kernels/reference/scalar_row.h"

namespace ratequant::kv {
namespace {

// The range of one channel over the tokens [start, end).
sweep::ValueRange ColumnRange(const ScalarBlock& block, int start, int end,
                              int channel) {
  const auto at = [&](int t) {
    return block.x[size_t(t) * block.dim + channel];
  };
  sweep::ValueRange range = {at(start), at(start)};
  for (int t = start + 1; t < end; ++t) {
    range.low = std::min(range.low, at(t));
    range.high = std::max(range.high, at(t));
  }
  return range;
}

// A row of the tokens [first, first + count) that share grids.
template <class Grid>
void MeasureColumns(const ScalarBlock& block, const std::vector<int>& widths,
                    int first, int count, ScalarRow& row) {
  const int start = std::max(first, block.skip_tokens);
  for (size_t w = 0; w < widths.size(); ++w) {
    row.MeasureEach(static_cast<int>(w), [&](int channel) {
      return sweep::GridMap<Grid, ScalarRow>(
          ColumnRange(block, start, first + count, channel), widths[w]);
    });
  }
}

template <class Quantizer>
void Measure(const ScalarBlock& block, const QuantizerSpec& spec,
             const std::vector<int>& widths, ErrorSums* sums) {
  const int group = Quantizer::ColumnTokens(spec, block.tensor);
  for (int t = block.skip_tokens; t < block.tokens; ++t) {
    const size_t at = size_t(t) * block.dim;
    ScalarRow row(spec, block.tensor, widths, block.dim, &block.x[at],
                  &block.y[at], sums);
    if (group > 0) {
      MeasureColumns<typename Quantizer::ColumnGrid>(
          block, widths, t / group * group, group, row);
    } else {
      Quantizer::MeasureRow(row, spec);
    }
  }
}

}  // namespace

std::vector<double> MeasureBlock(const ScalarBlock& block,
                                 const std::vector<QuantizerSpec>& quantizers,
                                 const std::vector<int>& widths) {
  std::vector<double> sums(SweepSums::kPerGroup);
  for (size_t i = size_t(block.skip_tokens) * block.dim; i < block.x.size();
       ++i) {
    sums[0] += static_cast<double>(block.y[i]) * block.y[i];
    sums[1] += static_cast<double>(block.x[i]) * block.x[i];
  }
  for (const QuantizerSpec& spec : quantizers) {
    std::vector<ErrorSums> errors(widths.size());
    sweep::SweepQuantizers::Visit(spec.kind, [&]<class Quantizer>(Quantizer) {
      Measure<Quantizer>(block, spec, widths, errors.data());
    });
    for (const ErrorSums& error : errors) {
      sums.insert(sums.end(), {error.square, error.weighted, error.projection});
    }
  }
  return sums;
}

}  // namespace ratequant::kv
