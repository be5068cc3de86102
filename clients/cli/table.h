#ifndef RATEQUANT_CLIENTS_CLI_TABLE_H_
#define RATEQUANT_CLIENTS_CLI_TABLE_H_

#include <string>
#include <utility>
#include <vector>

#include "clients/cli/text_style.h"

namespace ratequant::cli {

enum class Align { kLeft, kRight };

// Text in aligned columns, two spaces apart, under a line of titles.
class Table {
 public:
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // Missing cells at the end are empty; more cells than columns are dropped.
  void AddRow(std::vector<std::string> cells);

  // Lines that end in "\n" and in no space.
  std::string Render(const TextStyle& style) const;

 private:
  std::string Line(const std::vector<std::string>& cells,
                   const std::vector<int>& widths) const;

  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Label and value pairs, one a line, values aligned; pairs with an empty value
// are left out, and further lines of a value are indented to it.
std::string RenderPairs(
    const std::vector<std::pair<std::string, std::string>>& pairs,
    const TextStyle& style);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_TABLE_H_
