#ifndef RATEQUANT_SERVICES_COMMON_QUANTIZERS_H_
#define RATEQUANT_SERVICES_COMMON_QUANTIZERS_H_

// The canonical form of ratequant.v1.Quantizer and its text form. All
// functions are thread-safe.

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ratequant/v1/quantizer.pb.h"

namespace ratequant {

// Whether rows are rotated, which needs a head_dim that is a power of two.
bool IsRotated(v1::Quantizer::Kind kind);

// Whether the kind has a key_scale and a value_scale; it needs no more than 1
// bit then.
bool HasScale(v1::Quantizer::Kind kind);

// Fills in the defaults of the fields that apply to the kind (kivi: group_size
// 32; turboquant, tcq: key_scale L2, value_scale UNBIASED). `field` is the
// request's field, for the error: INVALID_ARGUMENT UNSUPPORTED_QUANTIZER for an
// unknown kind or scale, a group_size that isn't a power of two from 8 to 128,
// and a parameter that doesn't apply to the kind.
absl::StatusOr<v1::Quantizer> CanonicalQuantizer(const v1::Quantizer& quantizer,
                                                 absl::string_view field);

// "kivi", "kivi:group_size=64", "turboquant:seed=7,value_scale=l2": the kind
// and the parameters that differ from the default, as the command line takes
// them. `quantizer` is canonical.
std::string QuantizerText(const v1::Quantizer& quantizer);

// A total order over canonical quantizers: by kind, then group_size, seed,
// key_scale, value_scale. Negative, zero or positive like strcmp.
int CompareQuantizers(const v1::Quantizer& a, const v1::Quantizer& b);

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_QUANTIZERS_H_
