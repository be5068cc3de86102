#ifndef RATEQUANT_KV_QUANTIZER_H_
#define RATEQUANT_KV_QUANTIZER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ratequant/kv/quantizer_spec.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::kv {

// "rtn", "kivi", "quarot", "turboquant" or "tcq".
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
// the rotated ones, a multiple of group_size for kivi), page_tokens one of
// 16, 32, 64, 128 (a multiple of group_size for kivi), group_size one of 8, 16,
// 32, 64, 128. A field that doesn't apply to the kind must hold its default.
absl::Status ValidateQuantizer(const QuantizerSpec& spec, int head_dim,
                               int page_tokens);

// All quantizers with default parameters.
std::vector<QuantizerSpec> DefaultQuantizers();

}  // namespace ratequant::kv

#endif  // RATEQUANT_KV_QUANTIZER_H_
