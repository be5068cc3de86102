#ifndef RATEQUANT_SERVICES_ALLOCATION_EXECUTOR_H_
#define RATEQUANT_SERVICES_ALLOCATION_EXECUTOR_H_

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace ratequant::allocation {

// A few threads for work that may take milliseconds (solving, synced writes),
// so that gRPC's own threads stay free for answers from the cache; they also run
// at a lower priority than those. Thread-safe.
class Executor {
 public:
  // `threads` >= 1; at most `max_waiting` tasks wait for one.
  Executor(int threads, size_t max_waiting);

  // Runs what is waiting, then stops.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Runs `task` soon. False, and `task` isn't run, when too many wait.
  bool Post(std::function<void()> task);

  // Tasks that wait for a thread.
  size_t waiting() const;

 private:
  void Run();

  const size_t max_waiting_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> waiting_;  // guarded by mutex_
  bool stopping_ = false;                      // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_EXECUTOR_H_
