#ifndef RATEQUANT_SERVICES_ALLOCATION_CACHE_BYTES_H_
#define RATEQUANT_SERVICES_ALLOCATION_CACHE_BYTES_H_

#include <cstdint>

#include "ratequant/v1/bit_map.pb.h"
#include "ratequant/v1/calibration.pb.h"

namespace ratequant::allocation {

// The longest context that anything is counted at.
inline constexpr int64_t kMaxContextTokens = int64_t{1} << 30;

// What the cache of one sequence weighs at a context length of T tokens, the
// runtime's own count:
//   ceil(max(0, T - window) / page_tokens) * page bytes of all groups
//   + min(T, sinks + window) * groups * head_dim * 2.
// Immutable, thread-safe.
class CacheBytes {
 public:
  // `cache` has every default filled in; `calibration` has been checked.
  CacheBytes(const v1::Calibration& calibration, const v1::CacheConfig& cache);

  // Pages of a group that hold the tokens older than the window.
  int64_t pages() const { return pages_; }

  // Bytes of a sequence, `page_bytes` being one page of every group together.
  int64_t SequenceBytes(int64_t page_bytes) const;

  // The longest sequence, in tokens, that `memory` bytes hold; at most
  // kMaxContextTokens.
  int64_t MaxTokens(int64_t page_bytes, int64_t memory) const;

  // SequenceBytes over the tokens, and over the elements in bits.
  double BytesPerToken(int64_t page_bytes) const;
  double EffectiveBits(int64_t page_bytes) const;

  // The most page bytes that keep to a budget; -1 when not even 0 does. A
  // budget that was computed from a map by the two functions above gives that
  // map's page bytes back. Without pages any number of bytes fits, or none.
  double PageBytesForBytesPerToken(double bytes_per_token) const;
  double PageBytesForEffectiveBits(double effective_bits) const;

 private:
  // Of a sequence of `tokens` tokens.
  int64_t PagesAt(int64_t tokens) const;
  int64_t Fp16BytesAt(int64_t tokens) const;

  const int64_t tokens_;
  const int64_t sinks_;
  const int64_t window_;
  const int64_t page_tokens_;
  const int64_t elements_;  // of one token: groups * head_dim
  const int64_t pages_;     // at tokens_
  const int64_t fp16_bytes_;
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_CACHE_BYTES_H_
