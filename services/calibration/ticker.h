#ifndef RATEQUANT_SERVICES_CALIBRATION_TICKER_H_
#define RATEQUANT_SERVICES_CALIBRATION_TICKER_H_

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

namespace ratequant::calibration {

// Calls a function again and again, from a thread of its own, until it is
// destroyed; after that never.
class Ticker {
 public:
  Ticker(std::chrono::milliseconds period, std::function<void()> tick)
      : thread_([this, period, tick = std::move(tick)]() {
          std::unique_lock<std::mutex> lock(mutex_);
          while (!stopped_.wait_for(lock, period, [this]() { return stop_; })) {
            tick();
          }
        }) {}

  ~Ticker() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
      stopped_.notify_all();
    }
    thread_.join();
  }

  Ticker(const Ticker&) = delete;
  Ticker& operator=(const Ticker&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stop_ = false;
  std::thread thread_;  // last: uses the others
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_TICKER_H_
