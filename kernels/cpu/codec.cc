#include "ratequant/kv/codec.h"

#include "kernels/cpu/simd_codec.h"
#include "kernels/quantizers/section.h"
#include "kernels/reference/reference_codec.h"

namespace ratequant::kv {

absl::StatusOr<std::unique_ptr<Codec>> Codec::Create(const Options& options) {
  const absl::Status status = ValidateCodecOptions(options);
  if (!status.ok()) return status;
  EncodeRowsFunction* const encode_rows = GetEncodeRows();
  DecodeRowsFunction* const decode_rows = GetDecodeRows();
  if (options.backend == Backend::kSimd && encode_rows != nullptr &&
      decode_rows != nullptr) {
    return std::make_unique<SimdCodec>(options, encode_rows, decode_rows);
  }
  // A CPU without vectors computes the same, one float at a time.
  return std::make_unique<ReferenceCodec>(options);
}

}  // namespace ratequant::kv
