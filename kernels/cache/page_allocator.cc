#include "kernels/cache/page_allocator.h"

#include <algorithm>
#include <utility>

namespace ratequant::kv {
namespace {

int32_t Pop(std::vector<int32_t>& pages) {
  const int32_t page = pages.back();
  pages.pop_back();
  return page;
}

}  // namespace

bool PageAllocator::Take(int count, std::vector<Taken>* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (count > FreeLocked()) return false;
  for (int i = 0; i < count; ++i) {
    Taken taken;
    if (!dirty_.empty()) {
      taken.page = Pop(dirty_);
    } else if (!restored_.empty()) {
      taken.page = Pop(restored_);
    } else {
      taken = {fresh_++, true};
      owners_.push_back(0);
    }
    owners_[taken.page] = 1;
    out->push_back(taken);
  }
  return true;
}

void PageAllocator::Share(absl::Span<const int32_t> pages) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (int32_t page : pages) ++owners_[page];
}

void PageAllocator::Return(absl::Span<const int32_t> pages) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (int32_t page : pages) {
    if (--owners_[page] == 0) dirty_.push_back(page);
  }
}

bool PageAllocator::IsShared(int32_t page) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return owners_[page] > 1;
}

int64_t PageAllocator::FreePages() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return FreeLocked();
}

int64_t PageAllocator::FreeLocked() const {
  return static_cast<int64_t>(dirty_.size() + restored_.size()) + num_pages_ -
         fresh_;
}

int64_t PageAllocator::DirtyFreePages() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<int64_t>(dirty_.size());
}

std::vector<int32_t> PageAllocator::WithdrawDirty() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<int32_t> pages = std::exchange(dirty_, {});
  std::sort(pages.begin(), pages.end());
  return pages;
}

void PageAllocator::Restore(absl::Span<const int32_t> pages) {
  const std::lock_guard<std::mutex> lock(mutex_);
  restored_.insert(restored_.end(), pages.rbegin(), pages.rend());
}

}  // namespace ratequant::kv
