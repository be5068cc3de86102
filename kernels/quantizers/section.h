#ifndef RATEQUANT_KERNELS_QUANTIZERS_SECTION_H_
#define RATEQUANT_KERNELS_QUANTIZERS_SECTION_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/quantizers/host_device.h"
#include "ratequant/kv/codec.h"
#include "ratequant/kv/quantizer.h"

// Where things lie in a section (kernels/FORMAT.md, "Sections").

namespace ratequant::kv {

// `count` codes of `width` bits. A row is a list of runs; all of today's
// quantizers have one.
struct CodeRun {
  int width = 0;
  int count = 0;
};

// The runs of one row.
std::vector<CodeRun> CodeRunsOfRow(int width, int head_dim);

// The parameters of a section: fp16 scales and, for asymmetric quantizers,
// zeros. A parameter covers `block_tokens` tokens by `block_channels` channels.
struct ParamLayout {
  int block_tokens = 1;
  int block_channels = 0;
  bool has_zero = false;
  int per_block = 0;         // parameters of one block of tokens
  size_t scales_stride = 0;  // bytes from one block's scales to the next
  size_t zeros_offset = 0;   // bytes from a block's scales to its zeros

  // Byte offset of parameter `index` (0..per_block) of the block of `token`.
  RQ_HOST_DEVICE size_t ScaleOffset(int token, int index) const {
    return static_cast<size_t>(token / block_tokens) * scales_stride +
           static_cast<size_t>(index) * sizeof(uint16_t);
  }
  RQ_HOST_DEVICE size_t ZeroOffset(int token, int index) const {
    return ScaleOffset(token, index) + zeros_offset;
  }
};

// Nothing is checked: for arguments that ComputeSectionLayout accepts, at
// widths 1 to 8.
ParamLayout MakeParamLayout(const QuantizerSpec& quantizer, Tensor tensor,
                            int head_dim, int page_tokens);

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
