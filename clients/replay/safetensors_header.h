#ifndef RATEQUANT_CLIENTS_REPLAY_SAFETENSORS_HEADER_H_
#define RATEQUANT_CLIENTS_REPLAY_SAFETENSORS_HEADER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ratequant::replay {

// A tensor as the header describes it; nothing of it is checked.
struct TensorEntry {
  std::string dtype;
  std::vector<uint64_t> shape;
  std::vector<uint64_t> data_offsets;
};

struct SafeTensorsHeader {
  std::map<std::string, std::string> metadata;
  std::map<std::string, TensorEntry> tensors;
};

// A name from a file for a message: in quotes, short, and without control
// characters.
std::string QuotedName(absl::string_view name);

// Parses the JSON of a safetensors header: an object of tensors, each with
// exactly "dtype", "shape" and "data_offsets", and "__metadata__", an object of
// texts. INVALID_ARGUMENT says where it isn't JSON, or what isn't of that form
// or is there twice. Memory stays in proportion to the text, whatever it nests.
absl::StatusOr<SafeTensorsHeader> ParseSafeTensorsHeader(
    absl::string_view json);

}  // namespace ratequant::replay

#endif  // RATEQUANT_CLIENTS_REPLAY_SAFETENSORS_HEADER_H_
