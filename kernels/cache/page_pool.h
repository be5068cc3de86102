#ifndef RATEQUANT_KERNELS_CACHE_PAGE_POOL_H_
#define RATEQUANT_KERNELS_CACHE_PAGE_POOL_H_

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>
#include <utility>

namespace ratequant::kv {

class PagePool;

// One page, returned to its pool when it goes out of scope. Movable.
class Page {
 public:
  Page() = default;
  Page(Page&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)),
        data_(std::exchange(other.data_, nullptr)) {}
  Page& operator=(Page&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~Page();

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  friend class PagePool;
  Page(PagePool* pool, uint8_t* data) : pool_(pool), data_(data) {}

  PagePool* pool_ = nullptr;
  uint8_t* data_ = nullptr;
};

// Pages of one size, at least a pointer's. Outlives its pages. Thread-safe.
class PagePool {
 public:
  // Pages begin on a cache line, which is also enough for any vector load.
  static constexpr std::align_val_t kAlignment{64};

  explicit PagePool(size_t page_bytes) : page_bytes_(page_bytes) {}
  ~PagePool() { ReleaseFree(); }
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  size_t page_bytes() const { return page_bytes_; }

  // A page of zeros: a freed one if there is one, else a new one. An empty Page
  // when memory runs out.
  Page Take();

  // Bytes of freed pages.
  int64_t FreeBytes() const;

  // Gives freed pages back to the system.
  void ReleaseFree();

 private:
  friend class Page;
  void Return(uint8_t* data);
  uint8_t* Pop();  // the first freed page; mutex_ held, free_ not null

  const size_t page_bytes_;
  mutable std::mutex mutex_;
  // A list through the freed pages themselves, so that freeing can't fail: a
  // page begins with the address of the next. Both guarded by mutex_.
  uint8_t* free_ = nullptr;
  int64_t free_pages_ = 0;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CACHE_PAGE_POOL_H_
