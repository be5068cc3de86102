#ifndef RATEQUANT_KERNELS_QUANTIZERS_SECTION_H_
#define RATEQUANT_KERNELS_QUANTIZERS_SECTION_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "kernels/quantizers/section_layout.h"
#include "ratequant/kv/codec.h"
#include "ratequant/kv/quantizer.h"

// Checks of what codecs are asked for. Where things lie in a section is in
// section_layout.h.

namespace ratequant::kv {

// OK for a head_dim and a page size that some quantizer supports.
absl::Status ValidateShape(int head_dim, int page_tokens);

// The errors of Codec::Create.
absl::Status ValidateCodecOptions(const Codec::Options& options);

// The errors of Codec::Encode and Decode other than bad values.
absl::Status ValidateEncode(const Codec& codec, const ConstRows& rows,
                            int first, int count, int skip_tokens,
                            size_t section_bytes);
absl::Status ValidateDecode(const Codec& codec, const MutableRows& out,
                            int first, int count, size_t section_bytes);

// DATA_LOSS for a value that fp16 can't hold, at `row` of the page.
absl::Status BadValueError(float value, int row, int channel);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_SECTION_H_
