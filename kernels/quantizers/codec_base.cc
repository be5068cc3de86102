#include "kernels/quantizers/codec_base.h"

#include "kernels/quantizers/limits.h"
#include "kernels/quantizers/rotation.h"
#include "kernels/quantizers/trellis.h"
#include "kernels/quantizers/trellis_codebook.h"
#include "ratequant/kv/bit_width.h"

namespace ratequant::kv {

CodecBase::CodecBase(const Options& options)
    : options_(options),
      layout_(*ComputeSectionLayout(options.quantizer, options.tensor,
                                    options.width, options.head_dim,
                                    options.page_tokens)) {
  InitQuantizer();
  plan_.kind = options_.quantizer.kind;
  plan_.stores_halves = stores_halves();
  plan_.round_to_half = options_.round_to_half;
  plan_.width = options_.width;
  plan_.dim = options_.head_dim;
  plan_.layout = layout_;
  plan_.params = params_;
  if (!signs_.empty()) plan_.signs = signs_.data();
  plan_.codebook = codebook_;
  plan_.row_scale = row_scale();
}

void CodecBase::InitQuantizer() {
  if (stores_halves()) return;
  const QuantizerSpec& quantizer = options_.quantizer;
  params_ = MakeParamLayout(quantizer, options_.tensor, options_.head_dim,
                            options_.page_tokens);
  plan_.trellis =
      quantizer.kind == QuantizerKind::kTcq && IsTrellisWidth(options_.width);
  if (plan_.trellis) {
    codebook_ = &GetTrellisCodebook(options_.head_dim, options_.width);
  } else if (HasRowScale(quantizer.kind)) {
    codebook_ = &GetCodebook(options_.head_dim, options_.width);
  }
  if (IsRotated(quantizer.kind)) {
    for (int c = 0; c < options_.head_dim; ++c) {
      signs_.push_back(RotationSign(quantizer.seed, c));
    }
  }
}

bool CodecBase::stores_halves() const { return options_.width == kFp16Width; }

RowScale CodecBase::row_scale() const {
  return options_.tensor == Tensor::kKey ? options_.quantizer.key_scale
                                         : options_.quantizer.value_scale;
}

}  // namespace ratequant::kv
