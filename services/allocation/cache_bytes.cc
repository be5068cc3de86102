#include "services/allocation/cache_bytes.h"

#include <algorithm>
#include <cmath>

#include "services/allocation/calibration_check.h"

namespace ratequant::allocation {

CacheBytes::CacheBytes(const v1::Calibration& calibration,
                       const v1::CacheConfig& cache)
    : tokens_(cache.context_tokens()),
      sinks_(cache.sink_tokens()),
      window_(cache.window()),
      page_tokens_(calibration.tables(0).page_tokens()),
      elements_(GroupCount(calibration.geometry()) *
                calibration.geometry().head_dim()),
      pages_(PagesAt(tokens_)),
      fp16_bytes_(Fp16BytesAt(tokens_)) {}

int64_t CacheBytes::PagesAt(int64_t tokens) const {
  const int64_t packed = std::max<int64_t>(0, tokens - window_);
  return (packed + page_tokens_ - 1) / page_tokens_;
}

int64_t CacheBytes::Fp16BytesAt(int64_t tokens) const {
  return std::min(tokens, sinks_ + window_) * elements_ * 2;
}

int64_t CacheBytes::SequenceBytes(int64_t page_bytes) const {
  return pages_ * page_bytes + fp16_bytes_;
}

int64_t CacheBytes::MaxTokens(int64_t page_bytes, int64_t memory) const {
  // By division, which can't overflow.
  const auto fits = [&](int64_t tokens) {
    const int64_t left = memory - Fp16BytesAt(tokens);
    return left >= 0 && PagesAt(tokens) <= left / page_bytes;
  };
  int64_t low = 0, high = kMaxContextTokens;
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (fits(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

double CacheBytes::BytesPerToken(int64_t page_bytes) const {
  return static_cast<double>(SequenceBytes(page_bytes)) /
         static_cast<double>(tokens_);
}

double CacheBytes::EffectiveBits(int64_t page_bytes) const {
  return 8.0 * static_cast<double>(SequenceBytes(page_bytes)) /
         (static_cast<double>(tokens_) * static_cast<double>(elements_));
}

double CacheBytes::PageBytesForBytesPerToken(double bytes_per_token) const {
  const double total = bytes_per_token * static_cast<double>(tokens_);
  // Rounding of a budget that is meant to be met exactly: far below one byte.
  const double slack = std::max(1e-3, total * 1e-14);
  const double packed = total - static_cast<double>(fp16_bytes_) + slack;
  if (packed < 0) return -1;
  // Without pages the maps all weigh the same.
  if (pages_ == 0) return HUGE_VAL;
  return std::floor(packed / static_cast<double>(pages_));
}

double CacheBytes::PageBytesForEffectiveBits(double effective_bits) const {
  return PageBytesForBytesPerToken(effective_bits *
                                   static_cast<double>(elements_) / 8.0);
}

}  // namespace ratequant::allocation
