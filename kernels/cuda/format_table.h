#ifndef RATEQUANT_KERNELS_CUDA_FORMAT_TABLE_H_
#define RATEQUANT_KERNELS_CUDA_FORMAT_TABLE_H_

#include <vector>

#include "kernels/cuda/device_buffer.h"
#include "kernels/cuda/section_format.h"

namespace ratequant::kv::cuda {

// The formats that the sections of one launch have, with their codebooks, in
// device memory. Immutable after creation and thread-safe; must outlive the
// launches that use it.
class FormatTable {
 public:
  // `table` gets the formats of `specs`, in their order, for heads of
  // `head_dim` channels in pages of `page_tokens`. Waits for `stream`.
  // INVALID_ARGUMENT names the format and the value that isn't supported, and
  // what is.
  static Status Create(int head_dim, int page_tokens,
                       const std::vector<FormatSpec>& specs,
                       cudaStream_t stream, FormatTable* table);

  int head_dim() const { return head_dim_; }
  int page_tokens() const { return page_tokens_; }
  int size() const { return static_cast<int>(layouts_.size()); }

  const SectionFormat* device() const { return formats_.data(); }  // [size()]
  const SectionLayout& layout(int index) const { return layouts_[index]; }

 private:
  int head_dim_ = 0;
  int page_tokens_ = 0;
  std::vector<SectionLayout> layouts_;
  DeviceBuffer<SectionFormat> formats_;
  DeviceBuffer<float> codebooks_;
  DeviceBuffer<TrellisTables> trellises_;
};

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_KERNELS_CUDA_FORMAT_TABLE_H_
