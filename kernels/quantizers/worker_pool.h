#ifndef RATEQUANT_KERNELS_QUANTIZERS_WORKER_POOL_H_
#define RATEQUANT_KERNELS_QUANTIZERS_WORKER_POOL_H_

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace ratequant::kv {

// Threads that share out the indices of a loop. One Run at a time.
class WorkerPool {
 public:
  // `threads` takes part in every loop, the calling thread included; 0 means
  // one per core.
  explicit WorkerPool(int threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Calls task(0) to task(count - 1), in any order and from any thread, and
  // returns when all are done. `task` must not throw.
  void Run(int count, const std::function<void(int)>& task);

 private:
  void WorkerLoop();
  // Takes indices until none is left. Holds `lock` between tasks.
  void TakeTasks(std::unique_lock<std::mutex>& lock);

  std::mutex mutex_;
  std::condition_variable work_;  // there are indices to take, or stop_
  std::condition_variable done_;  // unfinished_ is 0
  const std::function<void(int)>* task_ = nullptr;
  int next_ = 0;
  int count_ = 0;
  int unfinished_ = 0;
  bool stop_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_WORKER_POOL_H_
