#ifndef RATEQUANT_CLIENTS_REPLAY_SAFETENSORS_H_
#define RATEQUANT_CLIENTS_REPLAY_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::replay {

// Headers above this are refused before anything is read of them.
inline constexpr uint64_t kMaxHeaderBytes = 32 << 20;

// One tensor, contiguous and row-major.
struct SafeTensor {
  kv::DType dtype = kv::DType::kFloat32;
  std::vector<uint64_t> shape;
  const void* data = nullptr;  // inside the file
};

// What a safetensors file holds.
struct SafeTensors {
  std::map<std::string, std::string> metadata;
  std::map<std::string, SafeTensor> tensors;  // point into the file's bytes
};

// Reads a safetensors file of F32, F16 and BF16 tensors whose bytes come from
// anywhere; `file` itself is aligned to 4 bytes, and so are the tensors for
// their types then. INVALID_ARGUMENT, naming the tensor or key, for a header
// that is larger than kMaxHeaderBytes or than the file, that isn't JSON of the
// format's form, or that names something twice; for other types; for data that
// doesn't fit its shape, isn't aligned for its type, overlaps, leaves gaps or
// isn't all there.
absl::StatusOr<SafeTensors> ParseSafeTensors(absl::string_view file);

}  // namespace ratequant::replay

#endif  // RATEQUANT_CLIENTS_REPLAY_SAFETENSORS_H_
