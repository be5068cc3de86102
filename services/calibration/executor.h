#ifndef RATEQUANT_SERVICES_CALIBRATION_EXECUTOR_H_
#define RATEQUANT_SERVICES_CALIBRATION_EXECUTOR_H_

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace ratequant::calibration {

// One thread that does one thing at a time. Child processes started on it live
// as long as it does. Thread-safe.
class Executor {
 public:
  // Runs when the executor is free again: whoever it tells can start the next
  // work at once.
  using Epilogue = std::function<void()>;
  using Work = std::function<Epilogue()>;

  Executor();
  // Waits for the work that runs.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Starts `work`; false when something runs already.
  bool TryRun(Work work);

  // Returns once nothing runs, epilogues included.
  void WaitIdle();

 private:
  void Loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  Work work_;
  bool busy_ = false;      // work was accepted and isn't over
  bool epilogue_ = false;  // an epilogue runs
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_EXECUTOR_H_
