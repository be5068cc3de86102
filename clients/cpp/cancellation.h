#ifndef RATEQUANT_CLIENTS_CPP_CANCELLATION_H_
#define RATEQUANT_CLIENTS_CPP_CANCELLATION_H_

#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "grpcpp/client_context.h"

namespace ratequant::client {

// Cancels calls from another thread. Thread-safe; Cancel may come before,
// during or after a call.
class Cancellation {
 public:
  Cancellation() = default;
  Cancellation(const Cancellation&) = delete;
  Cancellation& operator=(const Cancellation&) = delete;

  // Ends the running calls, and every later one, with CANCELLED. Not for use in
  // a signal handler: it takes a lock.
  void Cancel() ABSL_LOCKS_EXCLUDED(mutex_);

  // Whether Cancel was called.
  bool cancelled() const { return notification_.HasBeenNotified(); }

  // Notified by Cancel, to wait on.
  const absl::Notification& notification() const { return notification_; }

  // Ties a call to a Cancellation for as long as the scope lives.
  // `cancellation` may be null; `context` must outlive the scope.
  class Scope {
   public:
    Scope(Cancellation* cancellation, grpc::ClientContext* context);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Cancellation* const cancellation_;
    grpc::ClientContext* const context_;
  };

 private:
  absl::Mutex mutex_;
  absl::Notification notification_;
  std::vector<grpc::ClientContext*> contexts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_CANCELLATION_H_
