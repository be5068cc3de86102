#ifndef RATEQUANT_TESTS_KERNELS_CUDA_PAGED_HOST_H_
#define RATEQUANT_TESTS_KERNELS_CUDA_PAGED_HOST_H_

#include <cstdint>
#include <vector>

#include "kernels/paging/layer_memory.h"
#include "kernels/paging/sequence_step.h"
#include "tests/kernels/cuda/paged_case.h"

namespace ratequant::kv::cuda {

// A layer's memory in plain vectors, and what it must hold: computed from all
// tokens of a sequence at once, whatever steps they came in.
class PagedHost {
 public:
  static constexpr uint8_t kUntouched = 0x5A;
  static constexpr int kSlots = 4;

  explicit PagedHost(const PagedCase& paged_case);

  int kv_heads() const { return static_cast<int>(groups_.size()) / 2; }
  const LayerMemory& memory() const { return memory_; }
  const std::vector<GroupPlace>& groups() const { return groups_; }
  const std::vector<int32_t>& block_table() const { return block_table_; }
  const std::vector<uint8_t>& pages() const { return pages_; }
  const std::vector<uint8_t>& sidecars() const { return sidecars_; }

  // The slot of sequence `s`, and its pages, which are everywhere in the pool.
  static int Slot(int s) { return (3 * s + 2) % kSlots; }
  std::vector<int32_t> PagesOf(int s) const;

  int length(int s) const { return sequences_[s].length; }
  int packed_floor(int s) const { return sequences_[s].packed_floor; }

  // A new token's value as it comes, in the case's dtype.
  float InputAt(int s, int group, int position, int channel) const;

  // Adds tokens to a sequence and to what the memory must hold.
  void Append(int s, int count);

  // Value of a position as it is read back, in fp32.
  std::vector<float> ValueAt(int s, int group, int position) const;

  // Where the ring has rows that nobody may ask for, `got` counts.
  void ForgetStaleRows(const std::vector<uint8_t>& got);

 private:
  struct Sequence {
    int length = 0;
    int packed_floor = 0;
  };

  int Packed(int s, int group) const;
  void WritePages(int s, int group);
  BatchCase SectionBatchOf() const;

  const PagedCase& case_;
  std::vector<GroupPlace> groups_;
  std::vector<int32_t> block_table_;
  std::vector<uint8_t> pages_;
  std::vector<uint8_t> sidecars_;
  std::vector<Sequence> sequences_;
  LayerMemory memory_;  // of the vectors
};

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_TESTS_KERNELS_CUDA_PAGED_HOST_H_
