#include "services/allocation/baseline_map.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace ratequant::allocation {
namespace {

struct TotalRange {
  int64_t lowest = 0;
  int64_t highest = 0;
};

TotalRange Totals(const ChoiceTable& table, int i) {
  const int64_t groups = table.groups();
  return {groups * table.Bounds(i).lower, groups * table.Bounds(i).upper};
}

// Page bytes of `n` groups that share `bits` evenly.
int64_t SpreadBytes(const ChoiceTable& table, int i, int64_t bits, int64_t n,
                    bool value) {
  const auto bytes = [&](int64_t width) {
    const Column& column =
        table.columns()[table.FirstColumn(i) + width - table.Bounds(i).lower];
    return value ? column.value_bytes : column.key_bytes;
  };
  const int64_t width = bits / n, raised = bits % n;
  const int64_t low = (n - raised) * bytes(width);
  return raised == 0 ? low : low + raised * bytes(width + 1);
}

// What a limit on bits or bytes is about.
double Cost(const ChoiceTable& table, int i, Baseline baseline, int64_t total,
            const Limit& limit) {
  const Assignment map = BaselineAt(table, i, baseline, total);
  return static_cast<double>(limit.measure == Limit::Measure::kCodeBits
                                 ? map.code_bits
                                 : map.page_bytes);
}

// Sums of widths that map `i` may have within a limit on bits or bytes: the
// largest; below the range when none.
int64_t LargestTotal(const ChoiceTable& table, int i, Baseline baseline,
                     const Limit& limit) {
  if (table.narrowed()) {
    return LargestNarrowedTotal(table, i, [&](int64_t total) {
      return Cost(table, i, baseline, total, limit) <= limit.amount;
    });
  }
  const TotalRange range = Totals(table, i);
  if (limit.measure == Limit::Measure::kCodeBits) {
    return std::min<int64_t>(range.highest, static_cast<int64_t>(limit.amount));
  }
  int64_t total = range.highest;
  while (total >= range.lowest &&
         static_cast<double>(BaselineBytes(table, i, baseline, total)) >
             limit.amount) {
    --total;
  }
  return total;
}

double Loss(const ChoiceTable& table, int i, Baseline baseline, int64_t total) {
  return BaselineAt(table, i, baseline, total).value / 2;
}

// The smallest sum of widths that keeps a limit on loss; above the range when
// none. The loss falls with the bits, up to noise in measured tables; what is
// returned keeps the limit in any case.
int64_t SmallestTotal(const ChoiceTable& table, int i, Baseline baseline,
                      double limit) {
  TotalRange range = Totals(table, i);
  if (Loss(table, i, baseline, range.highest) > limit) return range.highest + 1;
  while (range.lowest < range.highest) {
    const int64_t middle = (range.lowest + range.highest) / 2;
    if (Loss(table, i, baseline, middle) > limit) {
      range.lowest = middle + 1;
    } else {
      range.highest = middle;
    }
  }
  return range.highest;
}

}  // namespace

bool Covers(const ChoiceTable& table, int i) {
  for (int g = 0; g < table.groups(); ++g) {
    if (table.NearestColumn(i, g, table.Bounds(i).lower) < 0) return false;
  }
  return true;
}

int64_t LargestNarrowedTotal(const ChoiceTable& table, int i,
                             const std::function<bool(int64_t)>& fits) {
  // The lowest total gives every group its smallest width, so it fits if
  // anything does; from there on `lowest` fits.
  TotalRange range = Totals(table, i);
  if (!fits(range.lowest)) return range.lowest - 1;
  if (fits(range.highest)) return range.highest;
  while (range.highest - range.lowest > 1) {
    const int64_t middle = (range.lowest + range.highest) / 2;
    (fits(middle) ? range.lowest : range.highest) = middle;
  }
  return range.lowest;
}

Assignment BaselineAt(const ChoiceTable& table, int i, Baseline baseline,
                      int64_t total_bits) {
  std::vector<int> columns =
      BaselineWidths(baseline, total_bits, table.groups());
  for (int g = 0; g < table.groups(); ++g) {
    columns[g] = table.NearestColumn(i, g, columns[g]);
  }
  return Summarize(table, std::move(columns));
}

int64_t BaselineBytes(const ChoiceTable& table, int i, Baseline baseline,
                      int64_t total_bits) {
  if (table.narrowed()) {
    return BaselineAt(table, i, baseline, total_bits).page_bytes;
  }
  const BaselineSplit split = SplitBits(baseline, total_bits, table.groups());
  const int64_t n = table.groups() / 2;
  return SpreadBytes(table, i, split.key_bits, n, false) +
         SpreadBytes(table, i, split.value_bits, n, true);
}

std::optional<Assignment> BestBaseline(const ChoiceTable& table,
                                       Baseline baseline, const Limit& limit) {
  const bool loss = limit.measure == Limit::Measure::kLoss;
  std::optional<Assignment> best;
  for (int i = 0; i < table.table_count(); ++i) {
    if (!Covers(table, i)) continue;
    const int64_t total = loss ? SmallestTotal(table, i, baseline, limit.amount)
                               : LargestTotal(table, i, baseline, limit);
    const TotalRange range = Totals(table, i);
    if (total < range.lowest || total > range.highest) continue;
    Assignment map = BaselineAt(table, i, baseline, total);
    const bool better = !best.has_value() ||
                        (loss ? std::pair(map.page_bytes, map.value) <
                                    std::pair(best->page_bytes, best->value)
                              : map.value < best->value);
    if (better) best = std::move(map);
  }
  return best;
}

double LeastBaselineAmount(const ChoiceTable& table, Baseline baseline,
                           const Limit& limit) {
  double least = HUGE_VAL;
  for (int i = 0; i < table.table_count(); ++i) {
    if (!Covers(table, i)) continue;
    const TotalRange range = Totals(table, i);
    double amount = 0;
    switch (limit.measure) {
      case Limit::Measure::kCodeBits:
        amount = table.narrowed()
                     ? Cost(table, i, baseline, range.lowest, limit)
                     : static_cast<double>(range.lowest);
        break;
      case Limit::Measure::kPageBytes:
        amount = static_cast<double>(
            BaselineBytes(table, i, baseline, range.lowest));
        break;
      case Limit::Measure::kLoss:
        amount = Loss(table, i, baseline, range.highest);
        break;
    }
    least = std::min(least, amount);
  }
  return least;
}

}  // namespace ratequant::allocation
