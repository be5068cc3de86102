#ifndef RATEQUANT_KV_BIT_WIDTH_H_
#define RATEQUANT_KV_BIT_WIDTH_H_

namespace ratequant::kv {

// A code width is a number of bits per element, 1 to 8.
inline constexpr int kMinCodeWidth = 1;
// The largest; 0 and 9 to 15 don't exist.
inline constexpr int kMaxCodeWidth = 8;
// An element stored as fp16, without a quantizer.
inline constexpr int kFp16Width = 16;

// Whether codes may be so wide.
constexpr bool IsCodeWidth(int bits) {
  return bits >= kMinCodeWidth && bits <= kMaxCodeWidth;
}

// Whether an element may be stored so wide: a code width or fp16's.
constexpr bool IsStorageWidth(int bits) {
  return IsCodeWidth(bits) || bits == kFp16Width;
}

}  // namespace ratequant::kv

#endif  // RATEQUANT_KV_BIT_WIDTH_H_
