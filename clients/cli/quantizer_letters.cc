#include "clients/cli/quantizer_letters.h"

#include <string>

#include "absl/strings/ascii.h"
#include "clients/cpp/quantizer_text.h"

namespace ratequant::cli {

std::vector<char> QuantizerLetters(
    const google::protobuf::RepeatedPtrField<v1::Quantizer>& quantizers) {
  std::string taken;
  std::vector<char> letters;
  for (const v1::Quantizer& quantizer : quantizers) {
    char first = client::QuantizerText(quantizer)[0];
    std::string candidates = {first, absl::ascii_toupper(first)};
    candidates += "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    size_t free = candidates.find_first_not_of(taken);
    char letter = free == std::string::npos ? '?' : candidates[free];
    taken += letter;
    letters.push_back(letter);
  }
  return letters;
}

}  // namespace ratequant::cli
