#ifndef RATEQUANT_KERNELS_QUANTIZERS_CODEC_BASE_H_
#define RATEQUANT_KERNELS_QUANTIZERS_CODEC_BASE_H_

#include <cstdint>
#include <vector>

#include "kernels/quantizers/codebook.h"
#include "kernels/quantizers/row_plan.h"
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

  const RowPlan& plan() const { return plan_; }

 protected:
  const ParamLayout& params() const { return params_; }

  // True at width 16: rows are fp16, and no quantizer is involved.
  bool stores_halves() const;
  bool is_channel_wise() const { return params_.block_tokens > 1; }

  // [head_dim] the rotation's signs; empty without a rotation.
  const std::vector<float>& signs() const { return signs_; }

  // turboquant and tcq only.
  bool has_codebook() const { return codebook_ != nullptr; }
  const Codebook& codebook() const { return *codebook_; }
  RowScale row_scale() const;

 private:
  void InitQuantizer();

  const Options options_;
  SectionLayout layout_;
  ParamLayout params_;
  std::vector<float> signs_;
  const Codebook* codebook_ = nullptr;
  RowPlan plan_;
};

// The plan of a codec that Codec::Create has made; valid as long as the codec.
inline const RowPlan& PlanOf(const Codec& codec) {
  return static_cast<const CodecBase&>(codec).plan();
}

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_CODEC_BASE_H_
