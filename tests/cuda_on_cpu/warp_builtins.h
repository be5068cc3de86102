#ifndef RATEQUANT_TESTS_CUDA_ON_CPU_WARP_BUILTINS_H_
#define RATEQUANT_TESTS_CUDA_ON_CPU_WARP_BUILTINS_H_

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tests/cuda_on_cpu/current.h"
#include "tests/cuda_on_cpu/fail.h"

namespace cuda_on_cpu {

enum class WarpOp { kSync, kShuffle, kVote, kReduce };

// What one lane hands to the others.
struct WarpSlot {
  uint64_t words[2];
};

// Waits until all lanes of `mask` are here and gives their slots, [32], valid
// until this lane's next collective. Fails when the calling lane isn't in the
// mask, when a lane of the mask has ended, or when lanes of one mask meet in
// different collectives. Orders memory between them for kSync alone, as on a
// GPU.
const WarpSlot* MeetInWarp(unsigned mask, WarpOp op, WarpSlot mine);

// slots[lane]. Not inline, so that ThreadSanitizer doesn't see the shim's own
// memory.
WarpSlot SlotOf(const WarpSlot* slots, unsigned lane);

template <class T>
WarpSlot ToSlot(const T& value) {
  static_assert(sizeof(T) <= sizeof(WarpSlot) &&
                std::is_trivially_copyable_v<T>);
  WarpSlot slot{};
  std::memcpy(slot.words, &value, sizeof(T));
  return slot;
}

template <class T>
T FromSlot(const WarpSlot& slot) {
  T value;
  std::memcpy(&value, slot.words, sizeof(T));
  return value;
}

// The value of lane `source`, which must be in the mask.
template <class T>
T Shuffle(unsigned mask, const T& value, int source) {
  const WarpSlot* slots = MeetInWarp(mask, WarpOp::kShuffle, ToSlot(value));
  if (((mask >> source) & 1) == 0) {
    Fail("shuffle from lane %d, which isn't in the mask %08x", source, mask);
  }
  return FromSlot<T>(SlotOf(slots, static_cast<unsigned>(source)));
}

inline int Lane() { return static_cast<int>(current->lane); }

inline void CheckShuffleWidth(int width) {
  if (width < 1 || width > 32 || !std::has_single_bit(unsigned(width))) {
    Fail("shuffle width %d isn't a power of two up to 32", width);
  }
}

// Folds the values of the mask's lanes, from the lowest up.
template <class T, class F>
T ReduceInWarp(unsigned mask, T value, F combine) {
  const WarpSlot* slots = MeetInWarp(mask, WarpOp::kReduce, ToSlot(value));
  unsigned rest = mask;
  T result = FromSlot<T>(SlotOf(slots, std::countr_zero(rest)));
  for (rest &= rest - 1; rest != 0; rest &= rest - 1) {
    result =
        combine(result, FromSlot<T>(SlotOf(slots, std::countr_zero(rest))));
  }
  return result;
}

}  // namespace cuda_on_cpu

inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) {
  ::cuda_on_cpu::MeetInWarp(mask, ::cuda_on_cpu::WarpOp::kSync, {});
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  ::cuda_on_cpu::CheckShuffleWidth(width);
  const int lane = ::cuda_on_cpu::Lane();
  return ::cuda_on_cpu::Shuffle(mask, value,
                                lane / width * width + (source & (width - 1)));
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
  ::cuda_on_cpu::CheckShuffleWidth(width);
  const int lane = ::cuda_on_cpu::Lane();
  int source = lane ^ lane_mask;
  if (source / width > lane / width) source = lane;
  return ::cuda_on_cpu::Shuffle(mask, value, source);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  ::cuda_on_cpu::CheckShuffleWidth(width);
  const int lane = ::cuda_on_cpu::Lane();
  int source = lane + static_cast<int>(delta);
  if (source / width != lane / width) source = lane;
  return ::cuda_on_cpu::Shuffle(mask, value, source);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  ::cuda_on_cpu::CheckShuffleWidth(width);
  const int lane = ::cuda_on_cpu::Lane();
  int source = lane - static_cast<int>(delta);
  if (source < lane / width * width) source = lane;
  return ::cuda_on_cpu::Shuffle(mask, value, source);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const ::cuda_on_cpu::WarpSlot* slots =
      ::cuda_on_cpu::MeetInWarp(mask, ::cuda_on_cpu::WarpOp::kVote,
                                {{static_cast<uint64_t>(predicate != 0), 0}});
  unsigned votes = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((mask >> lane) & 1) {
      votes |=
          static_cast<unsigned>(::cuda_on_cpu::SlotOf(slots, lane).words[0])
          << lane;
    }
  }
  return votes;
}
inline int __any_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) == mask;
}

inline unsigned __reduce_add_sync(unsigned mask, unsigned value) {
  return ::cuda_on_cpu::ReduceInWarp(
      mask, value, [](unsigned a, unsigned b) { return a + b; });
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value) {
  return ::cuda_on_cpu::ReduceInWarp(
      mask, value, [](unsigned a, unsigned b) { return a | b; });
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
  return ::cuda_on_cpu::ReduceInWarp(
      mask, value, [](unsigned a, unsigned b) { return a < b ? b : a; });
}

#endif  // RATEQUANT_TESTS_CUDA_ON_CPU_WARP_BUILTINS_H_
