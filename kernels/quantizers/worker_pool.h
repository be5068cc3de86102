#ifndef RATEQUANT_KERNELS_QUANTIZERS_WORKER_POOL_H_
#define RATEQUANT_KERNELS_QUANTIZERS_WORKER_POOL_H_

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "ratequant/kv/execution.h"

namespace ratequant::kv {

// Threads that share out the indices of a loop; see MakeThreadPool.
class WorkerPool final : public LoopRunner {
 public:
  // `threads` takes part in every loop, the calling thread included; 0 means
  // one per core.
  explicit WorkerPool(int threads);
  ~WorkerPool() override;
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int concurrency() const override {
    return static_cast<int>(workers_.size()) + 1;
  }
  void Run(int count, absl::FunctionRef<void(int)> task) override;

 private:
  void WorkerLoop();
  // Takes indices until none is left. Holds `lock` between tasks.
  void TakeTasks(std::unique_lock<std::mutex>& lock);

  std::mutex turn_;               // held by the caller whose loop runs
  std::mutex mutex_;              // guards what follows
  std::condition_variable work_;  // there are indices to take, or stop_
  std::condition_variable done_;  // unfinished_ is 0
  const absl::FunctionRef<void(int)>* task_ = nullptr;
  int next_ = 0;
  int count_ = 0;
  int unfinished_ = 0;
  bool stop_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_WORKER_POOL_H_
