#include "ratequant/kv/codec.h"

#include "kernels/quantizers/section.h"
#include "kernels/reference/reference_codec.h"

namespace ratequant::kv {

absl::StatusOr<std::unique_ptr<Codec>> Codec::Create(const Options& options) {
  const absl::Status status = ValidateCodecOptions(options);
  if (!status.ok()) return status;
  return std::make_unique<ReferenceCodec>(options);
}

}  // namespace ratequant::kv
