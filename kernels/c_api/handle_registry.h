#ifndef RATEQUANT_KERNELS_C_API_HANDLE_REGISTRY_H_
#define RATEQUANT_KERNELS_C_API_HANDLE_REGISTRY_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace ratequant::kv {

// Gives objects numbers that callers from C hold instead of addresses: a stale
// or made-up number is found out, and an object stays alive while a call that
// has found it runs. Numbers start at 1 and are never used again. Thread-safe.
template <typename T>
class HandleRegistry {
 public:
  uint64_t Add(std::shared_ptr<T> object) {
    std::lock_guard<std::mutex> lock(mutex_);
    const uint64_t handle = next_;
    objects_.emplace(handle, std::move(object));
    ++next_;
    return handle;
  }

  // Null when there is no such object.
  std::shared_ptr<T> Find(uint64_t handle) const {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto it = objects_.find(handle);
    return it == objects_.end() ? nullptr : it->second;
  }

  // Takes the object out; null when there is no such object.
  std::shared_ptr<T> Remove(uint64_t handle) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto it = objects_.find(handle);
    if (it == objects_.end()) return nullptr;
    std::shared_ptr<T> object = std::move(it->second);
    objects_.erase(it);
    return object;
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<uint64_t, std::shared_ptr<T>> objects_;
  uint64_t next_ = 1;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_C_API_HANDLE_REGISTRY_H_
