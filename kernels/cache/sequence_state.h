#ifndef RATEQUANT_KERNELS_CACHE_SEQUENCE_STATE_H_
#define RATEQUANT_KERNELS_CACHE_SEQUENCE_STATE_H_

#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

namespace ratequant::kv {

// What the cache knows of one sequence. Written under a writing ScopedUse.
struct SequenceState {
  int64_t id = 0;
  int32_t slot = 0;
  int32_t packed_floor = 0;      // SequenceStep
  std::vector<int32_t> blocks;   // pages, in order
  std::vector<int32_t> lengths;  // [layers] tokens
  bool removed = false;          // its slot and pages are others' now
  std::atomic<int> users{0};     // readers, or -1 for a writer
};

// Says that a call uses a sequence for as long as this lives. False when
// another call forbids it: that would be a race.
class ScopedUse {
 public:
  enum class Kind { kRead, kWrite };

  ScopedUse(SequenceState* state, Kind kind) : kind_(kind) {
    int seen = state->users.load(std::memory_order_relaxed);
    while (kind == Kind::kRead ? seen >= 0 : seen == 0) {
      const int next = kind == Kind::kRead ? seen + 1 : -1;
      if (state->users.compare_exchange_weak(seen, next,
                                             std::memory_order_acquire)) {
        state_ = state;
        return;
      }
    }
  }
  ~ScopedUse() {
    if (state_ == nullptr) return;
    if (kind_ == Kind::kRead) {
      state_->users.fetch_sub(1, std::memory_order_release);
    } else {
      state_->users.store(0, std::memory_order_release);
    }
  }
  ScopedUse(ScopedUse&& other) noexcept
      : state_(std::exchange(other.state_, nullptr)), kind_(other.kind_) {}
  ScopedUse& operator=(ScopedUse&&) = delete;

  explicit operator bool() const { return state_ != nullptr; }

 private:
  SequenceState* state_ = nullptr;
  Kind kind_;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CACHE_SEQUENCE_STATE_H_
