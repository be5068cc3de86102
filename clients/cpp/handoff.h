#ifndef RATEQUANT_CLIENTS_CPP_HANDOFF_H_
#define RATEQUANT_CLIENTS_CPP_HANDOFF_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <utility>

namespace ratequant::client {

// Passes immutable values from whoever finds them to the engine that uses them,
// which changes to a new one only when it says so. Values have an `etag`; two
// with the same one are the same. Thread-safe. Built on the standard library
// alone, so that ThreadSanitizer understands all of it.
template <typename Value>
class Handoff {
 public:
  // A value that may be read as long as somebody holds it.
  using Pointer = std::shared_ptr<const Value>;

  // A value to be used from the next Take on, in place of one that wasn't taken
  // yet. Offering what is in use takes the other offer back.
  void Offer(Pointer value) {
    std::lock_guard<std::mutex> lock(mutex_);
    const bool news = current_ == nullptr || current_->etag != value->etag;
    offered_ = news ? std::move(value) : nullptr;
    has_offer_.store(news, std::memory_order_release);
  }

  // The newest offer, which is in use now; null when there is none. Costs one
  // load then.
  Pointer Take() {
    if (!HasOffer()) return nullptr;
    std::lock_guard<std::mutex> lock(mutex_);
    if (offered_ == nullptr) return nullptr;
    current_ = std::move(offered_);
    offered_ = nullptr;
    has_offer_.store(false, std::memory_order_release);
    return current_;
  }

  // Whether Take would return a value.
  bool HasOffer() const { return has_offer_.load(std::memory_order_acquire); }

  // What is in use: what Take returned last, null before.
  Pointer Current() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return current_;
  }

 private:
  mutable std::mutex mutex_;
  Pointer current_;                      // guarded by mutex_
  Pointer offered_;                      // guarded by mutex_
  std::atomic<bool> has_offer_ = false;  // offered_ != nullptr
};

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_HANDOFF_H_
