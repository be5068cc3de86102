#ifndef RATEQUANT_KV_CODEC_H_
#define RATEQUANT_KV_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ratequant/kv/quantizer.h"
#include "ratequant/kv/section_layout.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::kv {

// Version of the packed byte layout, kernels/FORMAT.md. A buffer of any other
// version is refused.
inline constexpr uint32_t kFormatVersion = 1;

// Which implementation runs. All give the same bytes and floats. kSimd picks
// the best instruction set at run time (AVX-512, AVX2, NEON) and is the
// reference on a CPU that has none of them.
enum class Backend { kReference, kSimd };

// Quantizes and dequantizes the rows of one group. Immutable after creation
// and thread-safe: any number of threads may use one codec on different
// sections, or read the same section.
class Codec {
 public:
  // What rows are encoded as, and of what.
  struct Options {
    QuantizerSpec quantizer;  // ignored at width 16
    Tensor tensor = Tensor::kKey;
    int width = 4;  // 1..8, or 16
    int head_dim = 0;
    int page_tokens = 32;
    Backend backend = Backend::kSimd;
    // Rows are rounded to fp16 before they are quantized, whatever their dtype,
    // as a cache does it.
    bool round_to_half = false;
  };

  // INVALID_ARGUMENT names the value that isn't supported and what is.
  static absl::StatusOr<std::unique_ptr<Codec>> Create(const Options& options);

  virtual ~Codec() = default;

  // What the codec was made with.
  virtual const Options& options() const = 0;

  // Where the parts of a section lie.
  virtual const SectionLayout& layout() const = 0;

  // Tokens that must be encoded together, aligned to a multiple of it within
  // the page: group_size for K under kivi, 1 otherwise.
  virtual int token_granule() const = 0;

  // Encodes rows [first, first + count) of a page into `section`
  // (layout().section_bytes). `rows` holds `count` rows. Rows below
  // `skip_tokens` (sinks) are left out of every range and norm; their codes are
  // 0 and, for per-token quantizers, their parameters 0.
  // first and count are multiples of token_granule(). INVALID_ARGUMENT for a
  // bad range; DATA_LOSS for a NaN, an Inf or a magnitude above 65504 (fp16's
  // largest), naming the row and channel. On error the rows' bytes in `section`
  // are unspecified, other rows untouched.
  virtual absl::Status Encode(const ConstRows& rows, int first, int count,
                              int skip_tokens,
                              absl::Span<uint8_t> section) const = 0;

  // Decodes rows [first, first + count) into `out`, in the original basis
  // (rotations undone). Any range. Values beyond fp16's range, which only
  // errors of quantization can make, become 65504 in fp16 output.
  // INVALID_ARGUMENT for a bad range.
  virtual absl::Status Decode(absl::Span<const uint8_t> section, int first,
                              int count, const MutableRows& out) const = 0;
};

// Layout without building a codec; same errors as Codec::Create.
absl::StatusOr<SectionLayout> ComputeSectionLayout(
    const QuantizerSpec& quantizer, Tensor tensor, int width, int head_dim,
    int page_tokens);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KV_CODEC_H_
