#include "services/allocation/choice_table.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "services/allocation/calibration_check.h"

namespace ratequant::allocation {
namespace {

// A page's rows as fp16, padded like every section (kernels/FORMAT.md).
int64_t Fp16PageBytes(const v1::Calibration& calibration) {
  const int64_t bytes = int64_t{calibration.tables(0).page_tokens()} *
                        calibration.geometry().head_dim() * 2;
  return (bytes + 15) / 16 * 16;
}

bool HasFp16(uint16_t widths) { return (widths >> (kFp16Width - 1) & 1) != 0; }

}  // namespace

ChoiceTable::ChoiceTable(const v1::Calibration& calibration,
                         const Objective& objective,
                         const std::vector<int>& tables,
                         const std::vector<WidthBounds>& bounds,
                         std::vector<uint16_t> group_widths)
    : groups_(static_cast<int>(GroupCount(calibration.geometry()))),
      bounds_(bounds),
      group_widths_(std::move(group_widths)) {
  for (size_t i = 0; i < tables.size(); ++i) {
    const v1::DistortionTable& table = calibration.tables(tables[i]);
    first_.push_back(static_cast<int>(columns_.size()));
    for (int width = bounds[i].lower; width <= bounds[i].upper; ++width) {
      columns_.push_back({tables[i], width, table.key_page_bytes(width - 1),
                          table.value_page_bytes(width - 1)});
    }
  }
  if (std::any_of(group_widths_.begin(), group_widths_.end(), HasFp16)) {
    const int64_t bytes = Fp16PageBytes(calibration);
    columns_.push_back({tables[0], kFp16Width, bytes, bytes});
  }
  for (int tensor : {0, 1}) {
    std::vector<int>& order = by_bytes_[tensor];
    order.resize(columns_.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return Bytes(tensor, a) < Bytes(tensor, b);
    });
  }
  values_.reserve(static_cast<size_t>(groups_) * columns_.size());
  for (int g = 0; g < groups_; ++g) {
    for (const Column& column : columns_) {
      values_.push_back(column.width == kFp16Width
                            ? 0
                            : objective.Value(column.table, g, column.width));
    }
  }
}

int ChoiceTable::NearestColumn(int i, int group, int width) const {
  if (!narrowed()) return first_[i] + width - bounds_[i].lower;
  if (HasFp16(group_widths_[group])) {
    return static_cast<int>(columns_.size()) - 1;
  }
  int nearest = -1;
  for (int w = bounds_[i].lower; w <= bounds_[i].upper; ++w) {
    const int column = first_[i] + w - bounds_[i].lower;
    if (w > width && nearest >= 0) break;
    if (Allows(group, column)) nearest = column;
  }
  return nearest;
}

Assignment Summarize(const ChoiceTable& table, std::vector<int> column) {
  Assignment assignment;
  for (int g = 0; g < table.groups(); ++g) {
    assignment.value += table.Value(g, column[g]);
    assignment.page_bytes += table.Bytes(g, column[g]);
    assignment.code_bits += table.columns()[column[g]].width;
  }
  assignment.column = std::move(column);
  return assignment;
}

}  // namespace ratequant::allocation
