#ifndef RATEQUANT_KERNELS_CACHE_PAGE_ALLOCATOR_H_
#define RATEQUANT_KERNELS_CACHE_PAGE_ALLOCATOR_H_

#include <cstdint>
#include <mutex>
#include <vector>

#include "absl/types/span.h"

namespace ratequant::kv {

// Which pages of a pool are taken, and by how many sequences. Knows numbers
// alone, not memory. Thread-safe.
class PageAllocator {
 public:
  explicit PageAllocator(int32_t num_pages) : num_pages_(num_pages) {}

  // A page taken. A clean one was never used before.
  struct Taken {
    int32_t page = 0;
    bool clean = false;
  };

  // Takes `count` pages, each with one owner, dirty ones first. False, and
  // nothing taken, when fewer are free.
  bool Take(int count, std::vector<Taken>* out);

  // Adds an owner to each page, or takes one away; without owners a page is
  // free.
  void Share(absl::Span<const int32_t> pages);
  void Return(absl::Span<const int32_t> pages);

  // Whether a page has more than one owner.
  bool IsShared(int32_t page) const;

  int64_t FreePages() const;

  // Free pages whose memory holds something. Withdraw takes them all, in
  // ascending order; Restore puts them back without memory.
  int64_t DirtyFreePages() const;
  std::vector<int32_t> WithdrawDirty();
  void Restore(absl::Span<const int32_t> pages);

 private:
  int64_t FreeLocked() const;  // mutex_ held

  const int32_t num_pages_;
  mutable std::mutex mutex_;       // guards what follows
  int32_t fresh_ = 0;              // pages from here on were never used
  std::vector<int32_t> owners_;    // [fresh_]
  std::vector<int32_t> dirty_;     // free pages, used and not restored since
  std::vector<int32_t> restored_;  // free pages, the lowest last
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CACHE_PAGE_ALLOCATOR_H_
