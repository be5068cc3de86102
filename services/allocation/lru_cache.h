#ifndef RATEQUANT_SERVICES_ALLOCATION_LRU_CACHE_H_
#define RATEQUANT_SERVICES_ALLOCATION_LRU_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "ratequant/v1/admin_service.pb.h"

namespace ratequant::allocation {

// Values by key, the least recently used dropped first once the weights sum to
// more than a capacity. A value that alone is heavier isn't kept. Thread-safe;
// values are shared with whoever got them.
template <typename Value>
class LruCache {
 public:
  explicit LruCache(size_t capacity) : capacity_(capacity) {}

  // The value of a key, which becomes the most recently used; null when absent.
  std::shared_ptr<const Value> Get(const std::string& key) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = index_.find(key);
    if (found == index_.end()) {
      ++misses_;
      return nullptr;
    }
    ++hits_;
    entries_.splice(entries_.begin(), entries_, found->second);
    return found->second->value;
  }

  // Puts a value in, replacing the one before. `weight` is in the unit of the
  // capacity.
  void Put(const std::string& key, std::shared_ptr<const Value> value,
           size_t weight) {
    std::lock_guard<std::mutex> lock(mutex_);
    RemoveLocked(key);
    if (weight > capacity_) return;
    entries_.push_front({key, std::move(value), weight});
    index_[key] = entries_.begin();
    weight_ += weight;
    for (; weight_ > capacity_; ++evictions_) RemoveLocked(entries_.back().key);
  }

  void Remove(const std::string& key) {
    std::lock_guard<std::mutex> lock(mutex_);
    RemoveLocked(key);
  }

  v1::CacheStatistics statistics() const {
    std::lock_guard<std::mutex> lock(mutex_);
    v1::CacheStatistics out;
    out.set_entries(static_cast<int64_t>(entries_.size()));
    out.set_bytes(static_cast<int64_t>(weight_));
    out.set_capacity_bytes(static_cast<int64_t>(capacity_));
    out.set_hits(hits_);
    out.set_misses(misses_);
    out.set_evictions(evictions_);
    return out;
  }

 private:
  struct Entry {
    std::string key;
    std::shared_ptr<const Value> value;
    size_t weight = 0;
  };

  // By value: the key may be the entry's own.
  void RemoveLocked(std::string key) {
    const auto found = index_.find(key);
    if (found == index_.end()) return;
    weight_ -= found->second->weight;
    entries_.erase(found->second);
    index_.erase(found);
  }

  const size_t capacity_;
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // most recently used first
  std::unordered_map<std::string, typename std::list<Entry>::iterator> index_;
  size_t weight_ = 0;
  int64_t hits_ = 0;
  int64_t misses_ = 0;
  int64_t evictions_ = 0;
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_LRU_CACHE_H_
