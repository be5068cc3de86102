#include "services/allocation/noise.h"

#include <algorithm>
#include <cmath>

#include "services/allocation/calibration_check.h"

namespace ratequant::allocation {
namespace {

class Noise {
 public:
  Noise(const v1::Calibration& calibration, const ChoiceTable& table, Cost cost)
      : calibration_(calibration), table_(table), cost_(cost) {}

  bool known() const {
    return std::all_of(
        table_.columns().begin(), table_.columns().end(), [&](const Column& c) {
          return !calibration_.tables(c.table).c2_standard_error().empty();
        });
  }

  // Loss per unit of cost.
  double Price(const std::vector<int>& column) const {
    double gain = 0, loss = HUGE_VAL;
    for (int g = 0; g < table_.groups(); ++g) {
      const double value = table_.Value(g, column[g]);
      for (int c = 0; c < columns(); ++c) {
        if (!table_.Allows(g, c)) continue;
        const double more = CostOf(g, c) - CostOf(g, column[g]);
        const double slope = (value - table_.Value(g, c)) / more;
        if (more > 0) gain = std::max(gain, slope);
        if (more < 0) loss = std::min(loss, slope);
      }
    }
    return loss == HUGE_VAL ? gain : (gain + loss) / 2;
  }

  bool Open(int group, int column, double price) const {
    for (int moved : {-1, 0, 1}) {
      const double chosen = Total(group, column, price, moved);
      for (int c = 0; c < columns(); ++c) {
        if (table_.Allows(group, c) && Total(group, c, price, moved) < chosen) {
          return true;
        }
      }
    }
    return false;
  }

 private:
  int columns() const { return static_cast<int>(table_.columns().size()); }

  double CostOf(int group, int column) const {
    return static_cast<double>(cost_ == Cost::kCodeBits
                                   ? table_.columns()[column].width
                                   : table_.Bytes(group, column));
  }

  double Total(int group, int column, double price, int moved) const {
    return std::max(0.0, table_.Value(group, column) +
                             moved * StandardError(group, column)) +
           price * CostOf(group, column);
  }

  double StandardError(int group, int column) const {
    const Column& c = table_.columns()[column];
    if (c.width == kFp16Width) return 0;
    return calibration_.tables(c.table).c2_standard_error(group * kWidths +
                                                          c.width - 1);
  }

  const v1::Calibration& calibration_;
  const ChoiceTable& table_;
  const Cost cost_;
};

}  // namespace

std::vector<bool> GroupsWithinNoise(const v1::Calibration& calibration,
                                    const ChoiceTable& table,
                                    const std::vector<int>& column, Cost cost) {
  const Noise noise(calibration, table, cost);
  if (!noise.known()) return {};
  const double price = noise.Price(column);
  std::vector<bool> open;
  for (int g = 0; g < table.groups(); ++g) {
    open.push_back(noise.Open(g, column[g], price));
  }
  return open;
}

}  // namespace ratequant::allocation
