#ifndef RATEQUANT_SERVICES_ALLOCATION_CHOICE_TABLE_H_
#define RATEQUANT_SERVICES_ALLOCATION_CHOICE_TABLE_H_

#include <array>
#include <cstdint>
#include <vector>

#include "ratequant/v1/calibration.pb.h"
#include "services/allocation/objective.h"

namespace ratequant::allocation {

// Smallest and largest width a quantizer may be used at.
struct WidthBounds {
  int lower = 1;
  int upper = 8;
};

// The width of a group that no quantizer touches.
inline constexpr int kFp16Width = 16;

// One thing a group can be: a quantizer at a width, or fp16.
struct Column {
  int table = 0;  // of the calibration
  int width = 0;
  int64_t key_bytes = 0;    // of one page of a K group
  int64_t value_bytes = 0;  // of one page of a V group
};

// Every (quantizer, width) a query allows, and what each group loses with it.
// Immutable after construction, thread-safe.
class ChoiceTable {
 public:
  // `bounds` has one entry for each of `tables`. Columns are in the order of
  // `tables`, ascending in width, and fp16 comes last when a group may have it.
  // `group_widths` are the sets of GroupWidths(); empty allows every group
  // every width that is measured.
  ChoiceTable(const v1::Calibration& calibration, const Objective& objective,
              const std::vector<int>& tables,
              const std::vector<WidthBounds>& bounds,
              std::vector<uint16_t> group_widths = {});

  int groups() const { return groups_; }
  const std::vector<Column>& columns() const { return columns_; }

  // E of a group in a column.
  double Value(int group, int column) const {
    return values_[static_cast<size_t>(group) * columns_.size() + column];
  }

  // Whether a group may be in a column.
  bool Allows(int group, int column) const {
    return group_widths_.empty() ||
           (group_widths_[group] >> (columns_[column].width - 1) & 1) != 0;
  }

  // Whether some group may not be in some column.
  bool narrowed() const { return !group_widths_.empty(); }

  // The column of the i-th of `tables` with the largest width a group may have
  // that isn't above `width`, which is within Bounds(i), or else with its
  // smallest; fp16 where the group must have that; -1 when there is none.
  int NearestColumn(int i, int group, int width) const;

  // Page bytes of a group in a column.
  int64_t Bytes(int group, int column) const {
    return group % 2 == 0 ? columns_[column].key_bytes
                          : columns_[column].value_bytes;
  }

  // All columns, ordered by the page bytes of such a group: solvers are quicker
  // with choices in the order of their cost.
  const std::vector<int>& ByBytes(int group) const {
    return by_bytes_[group % 2];
  }

  // Where the columns of the i-th of `tables` begin; that one's lowest width.
  int FirstColumn(int i) const { return first_[i]; }
  const WidthBounds& Bounds(int i) const { return bounds_[i]; }
  int table_count() const { return static_cast<int>(bounds_.size()); }

 private:
  int groups_ = 0;
  std::vector<WidthBounds> bounds_;
  std::vector<int> first_;
  std::vector<Column> columns_;
  std::array<std::vector<int>, 2> by_bytes_;  // of K and V groups
  std::vector<double> values_;                // [groups][columns]
  std::vector<uint16_t> group_widths_;
};

// One column for each group.
struct Assignment {
  std::vector<int> column;  // [groups]
  double value = 0;         // sum of E
  int64_t page_bytes = 0;   // sum
  int64_t code_bits = 0;    // sum of widths
};

// Sums up `column`, in group order.
Assignment Summarize(const ChoiceTable& table, std::vector<int> column);

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_CHOICE_TABLE_H_
