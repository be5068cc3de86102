#ifndef RATEQUANT_SERVICES_CALIBRATION_JOB_QUEUE_H_
#define RATEQUANT_SERVICES_CALIBRATION_JOB_QUEUE_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"

namespace ratequant::calibration {

// Runs jobs on a few threads, in turn for each client: a client with many jobs
// doesn't hold up one with a single job. Jobs of one client run in the order
// they came. Child processes started by a job live as long as the queue.
// Thread-safe; functions of jobs are called without a lock.
class JobQueue {
 public:
  struct Options {
    int max_concurrent = 1;  // jobs that run at the same time
    int max_waiting = 8;
  };

  // Where a job stands that waits.
  struct Place {
    int position = 1;                     // 1: the next to run
    absl::optional<absl::Duration> wait;  // unset until a job has ended
  };

  // Runs when the job's thread is free again: whoever it tells can start the
  // next job at once.
  using Epilogue = std::function<void()>;

  struct Job {
    std::string client;
    std::function<Epilogue()> run;
    std::function<void(const Place&)> moved;  // while it waits
  };

  explicit JobQueue(const Options& options,
                    std::function<absl::Time()> clock = absl::Now);
  // Forgets jobs that wait and waits for those that run.
  ~JobQueue();
  JobQueue(const JobQueue&) = delete;
  JobQueue& operator=(const JobQueue&) = delete;

  // Takes a job; its number, above 0, or 0 when max_waiting wait already.
  uint64_t Add(Job job);

  // Forgets a job that waits; false when it runs, has run or never was.
  bool Remove(uint64_t number);

  // How long until a job that came now would run, as far as can be told.
  absl::optional<absl::Duration> ExpectedWait() const;

  // Returns once nothing waits or runs, epilogues included; false at the
  // deadline.
  bool WaitIdle(absl::Time deadline);

  int waiting() const;
  int running() const;
  const Options& options() const { return options_; }

 private:
  struct Waiting {
    uint64_t number = 0;
    Job job;
  };
  using Notes = std::vector<std::function<void()>>;

  void Loop();
  // The next job to run; mutex_ held, waiting_ not 0.
  Waiting Next();
  // Jobs that wait, the next to run first; mutex_ held.
  std::vector<const Waiting*> Order() const;
  absl::optional<absl::Duration> WaitOf(int position) const;  // mutex_ held
  // Jobs that a thread is about to take don't count; mutex_ held.
  Notes TellPlaces() const;

  const Options options_;
  const std::function<absl::Time()> clock_;
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::map<std::string, std::deque<Waiting>> clients_;  // no empty ones
  std::string last_client_;  // whose job was started last
  int waiting_ = 0;
  int running_ = 0;
  int ending_ = 0;  // epilogues that run
  uint64_t next_number_ = 1;
  absl::optional<absl::Duration>
      usual_time_;  // of a job; recent ones count more
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_JOB_QUEUE_H_
