#ifndef RATEQUANT_KERNELS_REFERENCE_REFERENCE_CODEC_H_
#define RATEQUANT_KERNELS_REFERENCE_REFERENCE_CODEC_H_

#include <vector>

#include "kernels/quantizers/codec_base.h"

namespace ratequant::kv {

// The oracle: one element after the other, as kernels/FORMAT.md says it. Other
// backends must write the same bytes and decode the same floats.
class ReferenceCodec final : public CodecBase {
 public:
  using CodecBase::CodecBase;

  absl::Status Encode(const ConstRows& rows, int first, int count,
                      int skip_tokens,
                      absl::Span<uint8_t> section) const override;
  absl::Status Decode(absl::Span<const uint8_t> section, int first, int count,
                      const MutableRows& out) const override;

 private:
  // Rows of one block of tokens (ParamLayout::block_tokens), one after the
  // other, starting at page row `first`.
  void EncodeBlock(std::vector<float> values, int first, int skip_tokens,
                   uint8_t* section) const;
  void EncodeChannels(const std::vector<float>& values, int first,
                      int skip_tokens, uint8_t* section) const;
  std::vector<uint8_t> EncodeAsymmetricRow(const std::vector<float>& values,
                                           int token, uint8_t* section) const;
  std::vector<uint8_t> EncodeSymmetricRow(const std::vector<float>& values,
                                          int token, uint8_t* section) const;
  // Rotates a row; returns the canonical sum of its squares.
  float RotateAndMeasure(std::vector<float>& values) const;
  std::vector<uint8_t> EncodeTurboquantRow(std::vector<float> values, int token,
                                           uint8_t* section) const;
  std::vector<uint8_t> EncodeTcqRow(std::vector<float> values, int token,
                                    uint8_t* section) const;
  std::vector<float> DecodeRow(const uint8_t* section, int token) const;

  void StoreScale(uint8_t* section, int token, int index, float value) const;
  void StoreZero(uint8_t* section, int token, int index, float value) const;
  float LoadScale(const uint8_t* section, int token, int index) const;
  float LoadZero(const uint8_t* section, int token, int index) const;
  void StoreCodes(uint8_t* section, int token,
                  const std::vector<uint8_t>& codes) const;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_REFERENCE_REFERENCE_CODEC_H_
