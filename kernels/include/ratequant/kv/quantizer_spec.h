#ifndef RATEQUANT_KV_QUANTIZER_SPEC_H_
#define RATEQUANT_KV_QUANTIZER_SPEC_H_

#include <cstdint>

// What names a quantizer, in plain C++: CUDA code includes it on machines that
// have nothing but the toolkit.

namespace ratequant::kv {

// Quantizer families. Numbers are persisted and part of the C ABI: do not
// change. They equal ratequant.v1.Quantizer.Kind.
enum class QuantizerKind : int32_t {
  kRtn = 1,
  kKivi = 2,
  kQuarot = 3,
  kTurboquant = 4,
  kTcq = 5,
};

// The scale that turboquant and tcq store beside a row (see kernels/FORMAT.md).
// Numbers are persisted and part of the C ABI.
enum class RowScale : int32_t { kL2 = 1, kUnbiased = 2 };

// One quantizer with all parameters that change the bytes it writes. Fields
// that don't apply to `kind` hold their defaults, so that equality of specs is
// equality of quantizers.
struct QuantizerSpec {
  QuantizerKind kind = QuantizerKind::kKivi;
  int32_t group_size = 32;  // kivi: tokens in a K group, channels in a V group
  uint64_t seed = 0;        // quarot, turboquant, tcq: of the rotation's signs
  RowScale key_scale = RowScale::kL2;          // turboquant, tcq
  RowScale value_scale = RowScale::kUnbiased;  // turboquant, tcq

  friend bool operator==(const QuantizerSpec&, const QuantizerSpec&) = default;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KV_QUANTIZER_SPEC_H_
