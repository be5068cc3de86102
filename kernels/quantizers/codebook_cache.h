#ifndef RATEQUANT_KERNELS_QUANTIZERS_CODEBOOK_CACHE_H_
#define RATEQUANT_KERNELS_QUANTIZERS_CODEBOOK_CACHE_H_

#include <array>
#include <bit>
#include <mutex>

#include "kernels/quantizers/codebook.h"
#include "kernels/quantizers/limits.h"

namespace ratequant::kv {

// Codebooks of widths 1 to kWidths, made for all widths of a dim, a power of
// two, when one is first asked for. Thread-safe.
template <int kWidths>
class CodebookCache {
 public:
  // make(dim, width)
  using Make = Codebook (*)(int, int);

  explicit CodebookCache(Make make) : make_(make) {}

  const Codebook& Get(int dim, int width) {
    Entry& entry = entries_[std::countr_zero(static_cast<unsigned>(dim))];
    std::call_once(entry.once, [&] {
      for (int w = 1; w <= kWidths; ++w) entry.widths[w - 1] = make_(dim, w);
    });
    return entry.widths[width - 1];
  }

 private:
  struct Entry {
    std::once_flag once;
    std::array<Codebook, kWidths> widths;
  };

  const Make make_;
  std::array<Entry, std::countr_zero(unsigned{kMaxHeadDim}) + 1> entries_;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_CODEBOOK_CACHE_H_
