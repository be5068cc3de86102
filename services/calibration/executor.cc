#include "services/calibration/executor.h"

#include <utility>

namespace ratequant::calibration {

Executor::Executor() : thread_(&Executor::Loop, this) {}

Executor::~Executor() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

bool Executor::TryRun(Work work) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (busy_ || stop_) return false;
  busy_ = true;
  work_ = std::move(work);
  changed_.notify_all();
  return true;
}

void Executor::WaitIdle() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this]() { return !busy_ && !epilogue_; });
}

void Executor::Loop() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this]() { return work_ != nullptr || stop_; });
    if (work_ == nullptr) return;
    Work work = std::exchange(work_, nullptr);
    lock.unlock();
    Epilogue epilogue = work();
    work = nullptr;  // and what it holds
    lock.lock();
    busy_ = false;
    epilogue_ = true;
    lock.unlock();
    epilogue();
    epilogue = nullptr;
    lock.lock();
    epilogue_ = false;
    changed_.notify_all();
  }
}

}  // namespace ratequant::calibration
