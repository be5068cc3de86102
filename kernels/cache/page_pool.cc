#include "kernels/cache/page_pool.h"

#include <cstring>

namespace ratequant::kv {

Page::~Page() {
  if (data_ != nullptr) pool_->Return(data_);
}

Page PagePool::Take() {
  uint8_t* data = nullptr;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (free_ != nullptr) data = Pop();
  }
  if (data == nullptr) {
    data = static_cast<uint8_t*>(
        ::operator new(page_bytes_, kAlignment, std::nothrow));
    if (data == nullptr) return Page();
  }
  // Rows not yet written must not depend on who had the page before.
  std::memset(data, 0, page_bytes_);
  return Page(this, data);
}

int64_t PagePool::FreeBytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return free_pages_ * static_cast<int64_t>(page_bytes_);
}

void PagePool::ReleaseFree() {
  std::lock_guard<std::mutex> lock(mutex_);
  while (free_ != nullptr) ::operator delete(Pop(), kAlignment);
}

void PagePool::Return(uint8_t* data) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::memcpy(data, &free_, sizeof(free_));
  free_ = data;
  ++free_pages_;
}

uint8_t* PagePool::Pop() {
  uint8_t* data = free_;
  std::memcpy(&free_, data, sizeof(free_));
  --free_pages_;
  return data;
}

}  // namespace ratequant::kv
