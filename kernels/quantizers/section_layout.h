#ifndef RATEQUANT_KERNELS_QUANTIZERS_SECTION_LAYOUT_H_
#define RATEQUANT_KERNELS_QUANTIZERS_SECTION_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/quantizers/bit_stream.h"
#include "kernels/quantizers/host_device.h"
#include "ratequant/kv/bit_width.h"
#include "ratequant/kv/quantizer_spec.h"
#include "ratequant/kv/section_layout.h"
#include "ratequant/kv/tensor.h"

// Where things lie in a section (kernels/FORMAT.md, "Sections"), in plain C++
// for host and device. Nothing is checked here: the arguments are those that
// ComputeSectionLayout accepts.

namespace ratequant::kv {

inline constexpr size_t kSectionAlignment = 16;

constexpr size_t AlignToSection(size_t bytes) {
  return (bytes + kSectionAlignment - 1) / kSectionAlignment *
         kSectionAlignment;
}

// `count` codes of `width` bits.
struct CodeRun {
  int width = 0;
  int count = 0;
};

// The runs of one row. A row is a list of runs; all of today's quantizers have
// one.
inline std::vector<CodeRun> CodeRunsOfRow(int width, int head_dim) {
  return {{width, head_dim}};
}

// The parameters of a section: fp16 scales and, for asymmetric quantizers,
// zeros; or 8-bit gains (gain.h). A parameter covers `block_tokens` tokens by
// `block_channels` channels.
struct ParamLayout {
  int block_tokens = 1;
  int block_channels = 0;
  bool has_zero = false;
  int param_bytes = sizeof(uint16_t);  // 1: gains
  int per_block = 0;                   // parameters of one block of tokens
  size_t scales_stride = 0;  // bytes from one block's scales to the next
  size_t zeros_offset = 0;   // bytes from a block's scales to its zeros

  // Byte offset of parameter `index` (0..per_block) of the block of `token`.
  RQ_HOST_DEVICE size_t ScaleOffset(int token, int index) const {
    return static_cast<size_t>(token / block_tokens) * scales_stride +
           static_cast<size_t>(index) * param_bytes;
  }
  RQ_HOST_DEVICE size_t ZeroOffset(int token, int index) const {
    return ScaleOffset(token, index) + zeros_offset;
  }
};

// At widths 1 to 8.
inline ParamLayout MakeParamLayout(const QuantizerSpec& quantizer,
                                   Tensor tensor, int head_dim,
                                   int page_tokens) {
  ParamLayout params;
  const bool kivi = quantizer.kind == QuantizerKind::kKivi;
  if (quantizer.kind == QuantizerKind::kTcq) params.param_bytes = 1;
  params.has_zero = kivi || quantizer.kind == QuantizerKind::kQuarot;
  if (kivi && tensor == Tensor::kKey) {
    params.block_tokens = quantizer.group_size;
    params.block_channels = 1;
    params.per_block = head_dim;
    params.zeros_offset = head_dim * sizeof(uint16_t);
    params.scales_stride = 2 * params.zeros_offset;
    return params;
  }
  params.block_channels = kivi ? quantizer.group_size : head_dim;
  params.per_block = head_dim / params.block_channels;
  params.scales_stride = params.per_block * params.param_bytes;
  params.zeros_offset = page_tokens * params.scales_stride;
  return params;
}

inline SectionLayout MakeSectionLayout(const QuantizerSpec& quantizer,
                                       Tensor tensor, int width, int head_dim,
                                       int page_tokens) {
  SectionLayout layout;
  if (width == kFp16Width) {
    layout.row_bytes = head_dim * sizeof(uint16_t);
  } else {
    const ParamLayout params =
        MakeParamLayout(quantizer, tensor, head_dim, page_tokens);
    const size_t blocks = page_tokens / params.block_tokens;
    for (const CodeRun& run : CodeRunsOfRow(width, head_dim)) {
      layout.row_bytes += BytesOfCodes(run.width, run.count);
    }
    layout.params_bytes = blocks * params.per_block * params.param_bytes *
                          (params.has_zero ? 2 : 1);
  }
  layout.codes_offset = AlignToSection(layout.params_bytes);
  layout.section_bytes =
      AlignToSection(layout.codes_offset + page_tokens * layout.row_bytes);
  return layout;
}

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_SECTION_LAYOUT_H_
