#include "clients/cli/table.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace ratequant::cli {

void Table::AddRow(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::Line(const std::vector<std::string>& cells,
                        const std::vector<int>& widths) const {
  std::string line;
  for (size_t i = 0; i < columns_.size(); ++i) {
    if (i > 0) line += "  ";
    line += columns_[i].align == Align::kLeft ? PadRight(cells[i], widths[i])
                                              : PadLeft(cells[i], widths[i]);
  }
  absl::StripTrailingAsciiWhitespace(&line);
  return line;
}

std::string Table::Render(const TextStyle& style) const {
  std::vector<std::string> titles;
  std::vector<int> widths;
  for (size_t i = 0; i < columns_.size(); ++i) {
    int width = DisplayWidth(columns_[i].title);
    for (const auto& row : rows_) width = std::max(width, DisplayWidth(row[i]));
    titles.push_back(columns_[i].title);
    widths.push_back(width);
  }
  std::string text =
      absl::StrCat(Paint(style, Ink::kBold, Line(titles, widths)), "\n");
  for (const auto& row : rows_) absl::StrAppend(&text, Line(row, widths), "\n");
  return text;
}

std::string RenderPairs(
    const std::vector<std::pair<std::string, std::string>>& pairs,
    const TextStyle& style) {
  int width = 0;
  for (const auto& [label, value] : pairs) {
    if (!value.empty()) width = std::max(width, DisplayWidth(label));
  }
  std::string indent = absl::StrCat("\n", std::string(width + 2, ' '));
  std::string text;
  for (const auto& [label, value] : pairs) {
    if (value.empty()) continue;
    absl::StrAppend(&text, Paint(style, Ink::kDim, PadRight(label, width)),
                    "  ", absl::StrReplaceAll(value, {{"\n", indent}}), "\n");
  }
  return text;
}

}  // namespace ratequant::cli
