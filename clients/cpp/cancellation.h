#ifndef RATEQUANT_CLIENTS_CPP_CANCELLATION_H_
#define RATEQUANT_CLIENTS_CPP_CANCELLATION_H_

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/client_context.h"

namespace ratequant::client {

// Cancels a call from another thread. One object serves one call at a time.
// Thread-safe; Cancel may come before, during or after the call.
class Cancellation {
 public:
  Cancellation() = default;
  Cancellation(const Cancellation&) = delete;
  Cancellation& operator=(const Cancellation&) = delete;

  // Ends the running call, and every later one, with CANCELLED. Not for use in
  // a signal handler: it takes a lock.
  void Cancel() ABSL_LOCKS_EXCLUDED(mutex_);

  bool cancelled() const ABSL_LOCKS_EXCLUDED(mutex_);

  // Ties a call to a Cancellation for as long as the scope lives.
  // `cancellation` may be null; `context` must outlive the scope.
  class Scope {
   public:
    Scope(Cancellation* cancellation, grpc::ClientContext* context);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Cancellation* cancellation_;
  };

 private:
  mutable absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_CANCELLATION_H_
