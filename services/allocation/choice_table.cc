#include "services/allocation/choice_table.h"

#include <utility>

#include "services/allocation/calibration_check.h"

namespace ratequant::allocation {

ChoiceTable::ChoiceTable(const v1::Calibration& calibration,
                         const Objective& objective,
                         const std::vector<int>& tables,
                         const std::vector<WidthBounds>& bounds)
    : groups_(static_cast<int>(GroupCount(calibration.geometry()))),
      bounds_(bounds) {
  for (size_t i = 0; i < tables.size(); ++i) {
    const v1::DistortionTable& table = calibration.tables(tables[i]);
    first_.push_back(static_cast<int>(columns_.size()));
    for (int width = bounds[i].lower; width <= bounds[i].upper; ++width) {
      columns_.push_back({tables[i], width, table.key_page_bytes(width - 1),
                          table.value_page_bytes(width - 1)});
    }
  }
  values_.reserve(static_cast<size_t>(groups_) * columns_.size());
  for (int g = 0; g < groups_; ++g) {
    for (const Column& column : columns_) {
      values_.push_back(objective.Value(column.table, g, column.width));
    }
  }
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
