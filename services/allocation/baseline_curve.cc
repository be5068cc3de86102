#include "services/allocation/baseline_curve.h"

#include "services/allocation/baseline_map.h"

namespace ratequant::allocation {

EvenSums::EvenSums(const ChoiceTable& table, int i)
    : table_(table),
      i_(i),
      lowest_(int64_t{table.groups()} / 2 * table.Bounds(i).lower),
      sums_(int64_t{table.groups()} / 2 * table.Bounds(i).upper - lowest_ + 1) {
}

Breakpoint EvenSums::At(Baseline baseline, int64_t total_bits) {
  const BaselineSplit split = SplitBits(baseline, total_bits, table_.groups());
  Breakpoint sum = Of(split.key_bits).keys;
  const Breakpoint& values = Of(split.value_bits).values;
  sum.page_bytes += values.page_bytes;
  sum.code_bits += values.code_bits;
  sum.value += values.value;
  return sum;
}

const EvenSums::Sums& EvenSums::Of(int64_t bits) {
  Sums& sums = sums_[bits - lowest_];
  if (sums.computed) return sums;
  sums.computed = true;
  // Uniform gives both tensors half of an even total.
  const std::vector<int> widths =
      BaselineWidths(Baseline::kUniform, 2 * bits, table_.groups());
  for (int g = 0; g < table_.groups(); ++g) {
    const int column = table_.NearestColumn(i_, g, widths[g]);
    Breakpoint& sum = g % 2 == 0 ? sums.keys : sums.values;
    sum.page_bytes += table_.Bytes(g, column);
    sum.code_bits += table_.columns()[column].width;
    sum.value += table_.Value(g, column);
  }
  return sums;
}

BaselineCurve::BaselineCurve(const ChoiceTable& table, int i, Baseline baseline,
                             CurveCost cost, EvenSums* sums)
    : table_(table),
      i_(i),
      baseline_(baseline),
      cost_(cost),
      sums_(sums),
      covers_(Covers(table, i)),
      first_(int64_t{table.groups()} * table.Bounds(i).lower),
      end_(int64_t{table.groups()} * table.Bounds(i).upper + 1),
      next_(first_) {}

std::optional<double> BaselineCurve::ValueWithin(int64_t cost) {
  if (table_.narrowed()) return NarrowedValueWithin(cost);
  while (next_ < end_ && CostOf(next_) <= cost) ++next_;
  if (next_ == first_) return std::nullopt;
  return sums_->At(baseline_, next_ - 1).value;
}

std::optional<double> BaselineCurve::NarrowedValueWithin(int64_t cost) {
  if (!covers_) return std::nullopt;
  const int64_t total = LargestNarrowedTotal(
      table_, i_, [&](int64_t bits) { return CostOf(bits) <= cost; });
  if (total < first_) return std::nullopt;
  return sums_->At(baseline_, total).value;
}

int64_t BaselineCurve::CostOf(int64_t total_bits) const {
  switch (cost_) {
    case CurveCost::kPageBytes:
      return table_.narrowed()
                 ? sums_->At(baseline_, total_bits).page_bytes
                 : BaselineBytes(table_, i_, baseline_, total_bits);
    case CurveCost::kCodeBits:
      return table_.narrowed() ? sums_->At(baseline_, total_bits).code_bits
                               : total_bits;
    case CurveCost::kNothing:
      break;
  }
  return 0;
}

}  // namespace ratequant::allocation
