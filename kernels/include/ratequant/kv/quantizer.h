#ifndef RATEQUANT_KV_QUANTIZER_H_
#define RATEQUANT_KV_QUANTIZER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::kv {

// Quantizer families. Numbers are persisted and part of the C ABI: do not
// change. They equal ratequant.v1.Quantizer.Kind.
enum class QuantizerKind : int32_t {
  kRtn = 1,
  kKivi = 2,
  kQuarot = 3,
  kTurboquant = 4,
};

// The scale that turboquant stores beside a row (see kernels/FORMAT.md).
// Numbers are persisted and part of the C ABI.
enum class RowScale : int32_t { kL2 = 1, kUnbiased = 2 };

// One quantizer with all parameters that change the bytes it writes. Fields
// that don't apply to `kind` hold their defaults, so that equality of specs is
// equality of quantizers.
struct QuantizerSpec {
  QuantizerKind kind = QuantizerKind::kKivi;
  int32_t group_size = 32;  // kivi: tokens in a K group, channels in a V group
  uint64_t seed = 0;        // quarot, turboquant: seed of the rotation's signs
  RowScale key_scale = RowScale::kL2;          // turboquant
  RowScale value_scale = RowScale::kUnbiased;  // turboquant

  friend bool operator==(const QuantizerSpec&, const QuantizerSpec&) = default;
};

// "rtn", "kivi", "quarot" or "turboquant".
absl::string_view QuantizerId(QuantizerKind kind);

// Parses an id with optional parameters: "kivi", "kivi:group_size=64",
// "turboquant:seed=7,key_scale=l2,value_scale=unbiased". INVALID_ARGUMENT names
// what isn't known and what is supported.
absl::StatusOr<QuantizerSpec> ParseQuantizer(absl::string_view text);

// The shortest text that ParseQuantizer turns into `spec`.
std::string QuantizerName(const QuantizerSpec& spec);

// OK when `spec` can quantize heads of `head_dim` channels in pages of
// `page_tokens` tokens. INVALID_ARGUMENT says which value isn't supported and
// which are: head_dim is a multiple of 8 from 8 to 512 (a power of two for
// quarot and turboquant, a multiple of group_size for kivi), page_tokens one of
// 16, 32, 64, 128 (a multiple of group_size for kivi).
absl::Status ValidateQuantizer(const QuantizerSpec& spec, int head_dim,
                               int page_tokens);

// All four quantizers with default parameters.
std::vector<QuantizerSpec> DefaultQuantizers();

}  // namespace ratequant::kv

#endif  // RATEQUANT_KV_QUANTIZER_H_
