#ifndef RATEQUANT_KERNELS_QUANTIZERS_CODEC_BASE_H_
#define RATEQUANT_KERNELS_QUANTIZERS_CODEC_BASE_H_

#include <cstdint>
#include <vector>

#include "kernels/quantizers/codebook.h"
#include "kernels/quantizers/section.h"
#include "ratequant/kv/codec.h"

namespace ratequant::kv {

// What every backend's codec knows. Immutable. The options must have passed
// ValidateCodecOptions.
class CodecBase : public Codec {
 public:
  explicit CodecBase(const Options& options);

  const Options& options() const override { return options_; }
  const SectionLayout& layout() const override { return layout_; }
  int token_granule() const override { return params_.block_tokens; }

 protected:
  const ParamLayout& params() const { return params_; }

  // True at width 16: rows are fp16, and no quantizer is involved.
  bool stores_halves() const;
  bool is_channel_wise() const { return params_.block_tokens > 1; }

  // [head_dim] the rotation's signs; empty without a rotation.
  const std::vector<float>& signs() const { return signs_; }

  // Turboquant only.
  bool has_codebook() const { return codebook_ != nullptr; }
  const Codebook& codebook() const { return *codebook_; }
  RowScale row_scale() const;

 private:
  const Options options_;
  SectionLayout layout_;
  ParamLayout params_;
  std::vector<float> signs_;
  const Codebook* codebook_ = nullptr;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_CODEC_BASE_H_
