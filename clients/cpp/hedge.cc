#include "clients/cpp/hedge.h"

#include <memory>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "clients/cpp/status.h"

namespace ratequant::client {
namespace {

// The calls of one FirstAnswer.
class Race {
 public:
  Race(int replicas, const ReplicaCall& call, Cancellation* cancellation)
      : call_(call), cancellation_(cancellation), calls_(replicas) {}

  // Cancels what still runs and waits for it.
  ~Race() {
    for (Call& call : calls_) call.context.TryCancel();
    for (Call& call : calls_) {
      if (call.thread.joinable()) call.thread.join();
    }
  }

  // Asks one server, in a thread of its own; on this one when the system has no
  // thread to give.
  void Start(int replica) {
    ++running_;
    try {
      calls_[replica].thread = std::thread([this, replica] { Run(replica); });
    } catch (const std::system_error&) {
      Run(replica);
    }
  }

  // Notified while there is a call that TakeEnded would return.
  std::shared_ptr<const absl::Notification> event() {
    absl::MutexLock lock(&mutex_);
    return event_;
  }

  // The server of a call that ended, each once.
  std::optional<int> TakeEnded() {
    absl::MutexLock lock(&mutex_);
    if (ended_.empty()) return std::nullopt;
    const int replica = ended_.back();
    ended_.pop_back();
    --running_;
    if (ended_.empty()) event_ = std::make_shared<absl::Notification>();
    return replica;
  }

  // Calls that TakeEnded has yet to return.
  int running() const { return running_; }

  const absl::Status& status(int replica) const {
    return calls_[replica].status;
  }

 private:
  struct Call {
    grpc::ClientContext context;
    absl::Status status;
    std::thread thread;
  };

  void Run(int replica) {
    Call& call = calls_[replica];
    {
      Cancellation::Scope scope(cancellation_, &call.context);
      call.status = call_(replica, &call.context);
    }
    absl::MutexLock lock(&mutex_);
    ended_.push_back(replica);
    if (!event_->HasBeenNotified()) event_->Notify();
  }

  const ReplicaCall& call_;
  Cancellation* const cancellation_;
  std::vector<Call> calls_;
  int running_ = 0;
  absl::Mutex mutex_;
  std::vector<int> ended_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<absl::Notification> event_ ABSL_GUARDED_BY(mutex_) =
      std::make_shared<absl::Notification>();
};

}  // namespace

absl::StatusOr<int> FirstAnswer(int replicas, int first, absl::Duration delay,
                                const Environment& environment,
                                Cancellation* cancellation,
                                const ReplicaCall& call) {
  Race race(replicas, call, cancellation);
  absl::Status status;
  for (int asked = 0; asked < replicas || race.running() > 0;) {
    if (asked < replicas) race.Start((first + asked++) % replicas);
    if (asked < replicas) {
      environment.wait(*race.event(), delay);
    } else {
      race.event()->WaitForNotification();
    }
    const std::optional<int> ended = race.TakeEnded();
    if (!ended.has_value()) continue;
    status = race.status(*ended);
    if (status.ok()) return *ended;
    if (!IsTransient(status)) return status;
  }
  return status;
}

}  // namespace ratequant::client
