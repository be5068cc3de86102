#include "services/calibration/words.h"

#include <cstddef>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace ratequant::calibration {
namespace {

absl::Status Unfinished(absl::string_view command, char what) {
  return absl::InvalidArgumentError(absl::StrCat(
      "command '", command, "' ends inside ", absl::string_view(&what, 1)));
}

}  // namespace

absl::StatusOr<std::vector<std::string>> SplitWords(absl::string_view command) {
  std::vector<std::string> words;
  std::string word;
  bool in_word = false;
  char quote = 0;
  for (size_t i = 0; i < command.size(); ++i) {
    const char c = command[i];
    const bool last = i + 1 == command.size();
    if (quote != 0 && c == quote) {
      quote = 0;
    } else if (quote == '\'') {
      word += c;
    } else if (c == '\\') {
      if (last) return Unfinished(command, c);
      const char next = command[i + 1];
      const bool literal = quote == '"' && next != '"' && next != '\\';
      word += literal ? c : next;
      if (!literal) ++i;
      in_word = true;
    } else if (quote != 0) {
      word += c;
    } else if (c == '\'' || c == '"') {
      quote = c;
      in_word = true;
    } else if (!absl::ascii_isspace(c)) {
      word += c;
      in_word = true;
    } else if (in_word) {
      words.push_back(std::move(word));
      word.clear();
      in_word = false;
    }
  }
  if (quote != 0) return Unfinished(command, quote);
  if (in_word) words.push_back(std::move(word));
  return words;
}

}  // namespace ratequant::calibration
