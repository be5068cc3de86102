#ifndef RATEQUANT_KERNELS_CPU_SIMD_CODEC_H_
#define RATEQUANT_KERNELS_CPU_SIMD_CODEC_H_

#include "kernels/cpu/row_kernels.h"
#include "kernels/quantizers/codec_base.h"

namespace ratequant::kv {

// Vectors of 4 to 16 floats, as the CPU has them; the bytes and the decoded
// floats are the reference's.
class SimdCodec final : public CodecBase {
 public:
  SimdCodec(const Options& options, EncodeRowsFunction* encode_rows,
            DecodeRowsFunction* decode_rows);

  absl::Status Encode(const ConstRows& rows, int first, int count,
                      int skip_tokens,
                      absl::Span<uint8_t> section) const override;
  absl::Status Decode(absl::Span<const uint8_t> section, int first, int count,
                      const MutableRows& out) const override;

 private:
  EncodeRowsFunction* const encode_rows_;
  DecodeRowsFunction* const decode_rows_;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CPU_SIMD_CODEC_H_
