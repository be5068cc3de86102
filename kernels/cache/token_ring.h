#ifndef RATEQUANT_KERNELS_CACHE_TOKEN_RING_H_
#define RATEQUANT_KERNELS_CACHE_TOKEN_RING_H_

#include <cstdint>
#include <memory>

#include "ratequant/kv/tensor.h"

namespace ratequant::kv {

// The newest tokens of one group in fp16. The token at position p of its
// sequence lies in slot p % capacity, so a ring of capacity c holds any c
// consecutive positions. Who uses it knows which positions are in it.
class TokenRing {
 public:
  TokenRing() = default;

  // False when memory runs out; the ring is unchanged then, else empty.
  bool Allocate(int64_t capacity, int head_dim);

  int64_t capacity() const { return capacity_; }
  int64_t bytes() const { return capacity_ * head_dim_ * 2; }

  // Stores `count` rows as positions [first, first + count); count is at most
  // the capacity. Values must be finite and at most 65504 in magnitude.
  void Write(int64_t first, int64_t count, const ConstRows& rows);

  // Reads positions [first, first + count).
  void Read(int64_t first, int64_t count, const MutableRows& rows) const;

  // The rows [first, first + count) where they lie one after the other, else
  // null.
  const uint16_t* Contiguous(int64_t first, int64_t count) const;

  // Takes over positions [first, first + count) of another ring.
  void CopyFrom(const TokenRing& other, int64_t first, int64_t count);

 private:
  uint16_t* Slot(int64_t position) const {
    return data_.get() + position % capacity_ * head_dim_;
  }
  // Positions from `first` on, at most `count`, that lie one after the other.
  int64_t Run(int64_t first, int64_t count) const;

  int64_t capacity_ = 0;
  int head_dim_ = 0;
  std::unique_ptr<uint16_t[]> data_;  // [capacity, head_dim]
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CACHE_TOKEN_RING_H_
