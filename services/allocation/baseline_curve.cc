#include "services/allocation/baseline_curve.h"

#include "services/allocation/baseline_map.h"

namespace ratequant::allocation {

EvenSums::EvenSums(const ChoiceTable& table, int i)
    : table_(table),
      i_(i),
      lowest_(int64_t{table.groups()} / 2 * table.Bounds(i).lower),
      sums_(int64_t{table.groups()} / 2 * table.Bounds(i).upper - lowest_ + 1) {
}

double EvenSums::Value(Baseline baseline, int64_t total_bits) {
  const BaselineSplit split = SplitBits(baseline, total_bits, table_.groups());
  return Of(split.key_bits).keys + Of(split.value_bits).values;
}

const EvenSums::Sums& EvenSums::Of(int64_t bits) {
  Sums& sums = sums_[bits - lowest_];
  if (sums.keys >= 0) return sums;
  // Uniform gives both tensors half of an even total.
  const std::vector<int> widths =
      BaselineWidths(Baseline::kUniform, 2 * bits, table_.groups());
  const int shift = table_.FirstColumn(i_) - table_.Bounds(i_).lower;
  sums = {0, 0};
  for (int g = 0; g < table_.groups(); g += 2) {
    sums.keys += table_.Value(g, widths[g] + shift);
    sums.values += table_.Value(g + 1, widths[g + 1] + shift);
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
      first_(int64_t{table.groups()} * table.Bounds(i).lower),
      end_(int64_t{table.groups()} * table.Bounds(i).upper + 1),
      next_(first_) {}

std::optional<double> BaselineCurve::ValueWithin(int64_t cost) {
  while (next_ < end_ && CostOf(next_) <= cost) ++next_;
  if (next_ == first_) return std::nullopt;
  return sums_->Value(baseline_, next_ - 1);
}

int64_t BaselineCurve::CostOf(int64_t total_bits) const {
  switch (cost_) {
    case CurveCost::kPageBytes:
      return BaselineBytes(table_, i_, baseline_, total_bits);
    case CurveCost::kCodeBits:
      return total_bits;
    case CurveCost::kNothing:
      break;
  }
  return 0;
}

}  // namespace ratequant::allocation
