#ifndef RATEQUANT_KERNELS_CACHE_GROUP_ROWS_H_
#define RATEQUANT_KERNELS_CACHE_GROUP_ROWS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/paging/layer_memory.h"
#include "kernels/paging/sequence_step.h"
#include "ratequant/kv/codec.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::kv {

// The tokens of one group of one sequence in host memory: tokens below
// sink_tokens in the sinks, packed tokens in pages, the rest in the ring. A
// view; all that it refers to outlives it.
class GroupRows {
 public:
  GroupRows(const LayerMemory& memory, const Codec& codec, int group, int slot)
      : memory_(memory),
        codec_(codec),
        place_(memory.groups[group]),
        mean_(memory.MeanOf(group)),
        slot_(slot) {}

  // An append: Pack writes what leaves the window in `step` to the pages, which
  // must be there, and then Store the rest of its tokens, rows of `input` from
  // its first on, to sinks and ring. DATA_LOSS from Pack for a value that fp16
  // can't hold, anywhere in the step; Unpack makes what it wrote zeros again.
  absl::Status Pack(const SequenceStep& step, const ConstRows& input) const;
  void Unpack(const SequenceStep& step) const;
  void Store(const SequenceStep& step, const ConstRows& input) const;

  // Reads positions [first, first + count) of a sequence of state.begin tokens.
  absl::Status Gather(const SequenceStep& state, int first, int count,
                      const MutableRows& out) const;

 private:
  int dim() const { return memory_.head_dim; }
  int Packed(int length, int packed_floor) const {
    return PackedEnd(length, memory_.window, place_.block_tokens, packed_floor);
  }
  absl::Span<uint8_t> Section(int position) const;
  // Gather without the mean.
  absl::Status GatherStored(const SequenceStep& state, int first, int count,
                            const MutableRows& out) const;
  ConstRows RowsToEncode(int first, int count, const SequenceStep& step,
                         const ConstRows& input, uint16_t* scratch) const;
  absl::Status CheckStored(const SequenceStep& step,
                           const ConstRows& input) const;
  void ClearRows(int first, int end) const;
  void StoreSinks(const SequenceStep& step, const ConstRows& input) const;
  void StoreRing(const SequenceStep& step, const ConstRows& input) const;
  absl::Status Decode(int first, int count, const MutableRows& out) const;
  void ReadRing(int first, int count, const MutableRows& out) const;
  // Positions from `first` on, at most `count`, that lie one after the other in
  // the ring.
  int RingRun(int first, int count) const;

  const LayerMemory& memory_;
  const Codec& codec_;
  const GroupPlace& place_;
  const float* const mean_;  // null: none
  const int slot_;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CACHE_GROUP_ROWS_H_
