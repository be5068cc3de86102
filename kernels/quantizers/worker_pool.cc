#include "kernels/quantizers/worker_pool.h"

#include <algorithm>

namespace ratequant::kv {

WorkerPool::WorkerPool(int threads) {
  if (threads == 0) {
    threads =
        std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }
  for (int i = 1; i < threads; ++i) {
    workers_.emplace_back([this] { WorkerLoop(); });
  }
}

WorkerPool::~WorkerPool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void WorkerPool::Run(int count, absl::FunctionRef<void(int)> task) {
  if (count <= 0) return;
  const std::lock_guard<std::mutex> turn(turn_);
  std::unique_lock<std::mutex> lock(mutex_);
  task_ = &task;
  next_ = 0;
  count_ = count;
  unfinished_ = count;
  work_.notify_all();
  TakeTasks(lock);
  done_.wait(lock, [this] { return unfinished_ == 0; });
}

void WorkerPool::WorkerLoop() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    work_.wait(lock, [this] { return stop_ || next_ < count_; });
    if (stop_) return;
    TakeTasks(lock);
  }
}

void WorkerPool::TakeTasks(std::unique_lock<std::mutex>& lock) {
  while (next_ < count_) {
    const int index = next_++;
    const absl::FunctionRef<void(int)> task = *task_;
    lock.unlock();
    task(index);
    lock.lock();
    if (--unfinished_ == 0) done_.notify_all();
  }
}

std::unique_ptr<LoopRunner> MakeThreadPool(int threads) {
  return std::make_unique<WorkerPool>(threads);
}

}  // namespace ratequant::kv
