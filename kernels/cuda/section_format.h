#ifndef RATEQUANT_KERNELS_CUDA_SECTION_FORMAT_H_
#define RATEQUANT_KERNELS_CUDA_SECTION_FORMAT_H_

#include <cstdint>

#include "kernels/cuda/status.h"
#include "kernels/cuda/trellis_tables.h"
#include "kernels/quantizers/host_device.h"
#include "kernels/quantizers/section_layout.h"
#include "ratequant/kv/quantizer_spec.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::kv::cuda {

// How kernels quantize a section. Not persisted.
enum class CodeKind : int32_t {
  kHalf,           // width 16: rows are fp16
  kSymmetricRow,   // rtn
  kAsymmetricRow,  // kivi V: ranges of groups of a row's channels
  kChannel,        // kivi K: ranges of groups of a channel's tokens
  kRotatedRow,     // quarot
  kCodebookRow,    // turboquant, tcq
};

// All that a kernel needs to know of a group's format. Plain data: an array of
// them lies in device memory.
struct SectionFormat {
  CodeKind kind = CodeKind::kHalf;
  int32_t width = 16;
  uint32_t codes_offset = 0;  // bytes; SectionLayout
  uint32_t row_bytes = 0;
  ParamLayout params;
  uint64_t seed = 0;  // of the rotation
  // Of kCodebookRow. Codes stand for indexes of a codebook of index_width bits:
  // themselves, or what a trellis makes of them.
  RowScale row_scale = RowScale::kL2;
  int32_t index_width = 0;
  const float* units = nullptr;            // [2^index_width], device
  const float* thresholds = nullptr;       // [2^width - 1], device; no trellis
  const TrellisTables* trellis = nullptr;  // device; null: no trellis

  RQ_HOST_DEVICE bool has_trellis() const { return index_width > width; }
  // Scales are codes of gains (gain.h).
  RQ_HOST_DEVICE bool has_gains() const { return params.param_bytes == 1; }
};

// What a group of a bit map is: the arguments of Codec::Options.
struct FormatSpec {
  QuantizerSpec quantizer;  // ignored at width 16
  Tensor tensor = Tensor::kKey;
  int width = 16;  // 1 to 8, or 16
};

// INVALID_ARGUMENT names the value that isn't supported and what is: the same
// formats as Codec::Create takes.
Status CheckFormat(const FormatSpec& spec, int head_dim, int page_tokens);

// The format without its codebook. `spec` must have passed CheckFormat.
SectionFormat MakeSectionFormat(const FormatSpec& spec, int head_dim,
                                int page_tokens);

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_SECTION_FORMAT_H_
