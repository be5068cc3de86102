#ifndef RATEQUANT_SERVICES_ALLOCATION_SINGLE_FLIGHT_H_
#define RATEQUANT_SERVICES_ALLOCATION_SINGLE_FLIGHT_H_

#include <atomic>
#include <cstdint>
#include <future>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

namespace ratequant::allocation {

// Makes a value once for all who want the same one at the same time.
// Thread-safe.
template <typename Value>
class SingleFlight {
 public:
  // What `make` gives, or, when a call with the same key is making it, what
  // that one's gives. `make` must not call back with its own key, nor throw.
  template <typename Make>
  Value Do(const std::string& key, Make make) {
    std::promise<Value> promise;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      const auto [place, first] =
          running_.try_emplace(key, promise.get_future().share());
      if (!first) {
        const std::shared_future<Value> other = place->second;
        lock.unlock();
        ++shared_;
        return other.get();
      }
    }
    Value value = make();
    promise.set_value(value);
    std::lock_guard<std::mutex> lock(mutex_);
    running_.erase(key);
    return value;
  }

  // Calls that got another one's value.
  int64_t shared() const { return shared_; }

 private:
  std::mutex mutex_;
  // Guarded by mutex_.
  std::unordered_map<std::string, std::shared_future<Value>> running_;
  std::atomic<int64_t> shared_{0};
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_SINGLE_FLIGHT_H_
