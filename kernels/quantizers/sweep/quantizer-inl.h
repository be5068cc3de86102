// What the distortion sweep asks of a quantizer. One is a class with the
// members of SweepQuantizer, some of them its own, in a header beside this one,
// and is named in registry-inl.h; every backend then measures it.
//
// MeasureRow sees one row of a head, x, through an engine:
//   Vec                       float, or a vector of floats
//   Set(v), Round(v, low, high), CopySign(magnitude, sign)
//   tensor(), dim(), num_widths(), width(w)
//   Range()                   of the row's values
//   Measure(w, map)           x^ = map(x)
//   MeasureGroups<Grid>(n)    x^ by a Grid over every n channels, all widths
// and, where head_dim is a power of two (kRotates),
//   SumOfSquares()            in canonical order
//   Rotate()                  the row's values are now H (s * x) / sqrt(d)
//   Decode(map)               decoded values: map(values)
//   DecodeByCodebook(w, f)    the unit whose level is next to values * f
//   DecodeByTrellis(w, f)     the units that a trellis finds for values * f
//   Dot()                     values * decoded, in canonical order
//   Scale(s)                  decoded *= s
//   MeasureRotated(w)         x^ = decoded values, rotated back
// Every Measure is called once for each w.

#if defined(RATEQUANT_KERNELS_QUANTIZERS_SWEEP_QUANTIZER_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_QUANTIZER_INL_H_
#undef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_QUANTIZER_INL_H_
#else
#define RATEQUANT_KERNELS_QUANTIZERS_SWEEP_QUANTIZER_INL_H_
#endif

#include "kernels/quantizers/host_device.h"
#include "kernels/quantizers/sweep/grid-inl.h"
#include "kernels/quantizers/sweep/target.h"
#include "ratequant/kv/quantizer_spec.h"
#include "ratequant/kv/tensor.h"

RQ_SWEEP_BEGIN

struct SweepQuantizer {
  // kKind: a QuantizerKind, no two the same.

  static constexpr bool kRotates = false;  // needs a power of two as head_dim

  // Blocks of tokens are multiples of this power of two, at most 128.
  static RQ_HOST_DEVICE constexpr int TokenMultiple(const QuantizerSpec&) {
    return 1;
  }

  // Above 0: every channel has a ColumnGrid over as many tokens, which divide
  // TokenMultiple, and MeasureRow isn't called.
  static RQ_HOST_DEVICE constexpr int ColumnTokens(const QuantizerSpec&,
                                                   Tensor) {
    return 0;
  }
  using ColumnGrid = AsymmetricGrid;

  template <class Row>
  static RQ_SWEEP_INLINE void MeasureRow(Row&, const QuantizerSpec&) {}
};

// Calls visitor(Quantizer()) for the quantizer of `kind`; false when there is
// none.
template <class... Quantizers>
struct QuantizerList {
  template <class Visitor>
  static RQ_SWEEP_INLINE bool Visit(QuantizerKind kind, Visitor visitor) {
    return (VisitOne<Quantizers>(kind, visitor) || ...);
  }

 private:
  template <class Quantizer, class Visitor>
  static RQ_SWEEP_INLINE bool VisitOne(QuantizerKind kind, Visitor& visitor) {
    if (kind != Quantizer::kKind) return false;
    visitor(Quantizer());
    return true;
  }
};

RQ_SWEEP_END

#endif  // RATEQUANT_KERNELS_QUANTIZERS_SWEEP_QUANTIZER_INL_H_
