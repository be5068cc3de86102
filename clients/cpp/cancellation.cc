#include "clients/cpp/cancellation.h"

#include <algorithm>

namespace ratequant::client {

void Cancellation::Cancel() {
  absl::MutexLock lock(&mutex_);
  if (notification_.HasBeenNotified()) return;
  notification_.Notify();
  for (grpc::ClientContext* context : contexts_) context->TryCancel();
}

Cancellation::Scope::Scope(Cancellation* cancellation,
                           grpc::ClientContext* context)
    : cancellation_(cancellation), context_(context) {
  if (cancellation_ == nullptr) return;
  absl::MutexLock lock(&cancellation_->mutex_);
  cancellation_->contexts_.push_back(context);
  if (cancellation_->cancelled()) context->TryCancel();
}

Cancellation::Scope::~Scope() {
  if (cancellation_ == nullptr) return;
  absl::MutexLock lock(&cancellation_->mutex_);
  auto& contexts = cancellation_->contexts_;
  contexts.erase(std::find(contexts.begin(), contexts.end(), context_));
}

}  // namespace ratequant::client
