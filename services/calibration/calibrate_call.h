#ifndef RATEQUANT_SERVICES_CALIBRATION_CALIBRATE_CALL_H_
#define RATEQUANT_SERVICES_CALIBRATION_CALIBRATE_CALL_H_

#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "grpcpp/support/server_callback.h"
#include "ratequant/v1/calibration_service.pb.h"
#include "services/calibration/cancel_token.h"
#include "services/calibration/chunk_queue.h"
#include "services/calibration/progress_stream.h"
#include "services/common/status.h"

namespace ratequant::calibration {

// What the work and the transport of one call share. Thread-safe. The work
// holds it and must not use it any more once it has called End.
class CalibrateCall {
 public:
  CalibrateCall(std::shared_ptr<CancelToken> token, ProgressStream::Write write,
                ProgressStream::Finish finish, std::function<void()> read)
      : token_(std::move(token)),
        stream_(std::move(write), std::move(finish)),
        chunks_(std::move(read)) {}

  // Asks the work to stop with `why`.
  void Cancel(const absl::Status& why) {
    token_->Cancel(why);
    chunks_.Wake();
    CallCancelled();
  }

  // Cancel, for a call whose work hasn't begun.
  void CancelWaiting(const absl::Status& why) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (begun_) return;
    }
    Cancel(why);
  }

  // `cancelled` is called once, when the call is cancelled or if it was
  // already. For calls whose work hasn't begun.
  void OnCancel(std::function<void()> cancelled) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      cancelled_ = std::move(cancelled);
    }
    if (!token_->status().ok()) CallCancelled();
  }

  // The call's work begins: its place in the queue is of no interest any more.
  void Begin() {
    const std::lock_guard<std::mutex> lock(mutex_);
    begun_ = true;
    cancelled_ = nullptr;
  }
  void OfferPlace(const v1::CalibrateProgress& progress) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!begun_) stream_.Offer(progress);
  }

  // Ends the call with an error, or with `done` as its last message.
  void End(const absl::StatusOr<v1::CalibrateProgress>& done) {
    if (done.ok()) return stream_.End(*done, grpc::Status::OK);
    stream_.End(absl::nullopt, ToGrpcStatus(done.status()));
  }

  const CancelToken& cancel() const { return *token_; }
  ProgressStream& stream() { return stream_; }
  ChunkQueue& chunks() { return chunks_; }

 private:
  void CallCancelled() {
    std::function<void()> cancelled;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      cancelled = std::exchange(cancelled_, nullptr);
    }
    if (cancelled != nullptr) cancelled();
  }

  const std::shared_ptr<CancelToken> token_;
  ProgressStream stream_;
  ChunkQueue chunks_;  // CalibrateStream only
  std::mutex mutex_;   // guards what follows
  bool begun_ = false;
  std::function<void()> cancelled_;
};

// gRPC's side of a call: turns its events into calls of CalibrateCall. Owned by
// gRPC, deletes itself. `Reactor` is the base class of the kind of call.
template <typename Reactor>
class CallReactor : public Reactor {
 public:
  explicit CallReactor(std::shared_ptr<CancelToken> token,
                       std::function<void()> read = nullptr)
      : call_(std::make_shared<CalibrateCall>(
            std::move(token),
            [this](const v1::CalibrateProgress* p) { this->StartWrite(p); },
            [this](const grpc::Status& s) { this->Finish(s); },
            std::move(read))) {}

  const std::shared_ptr<CalibrateCall>& call() const { return call_; }

  void OnWriteDone(bool ok) override { call_->stream().OnWriteDone(ok); }
  void OnCancel() override {
    call_->Cancel(absl::CancelledError("the client cancelled the call"));
  }
  void OnDone() override { delete this; }

 private:
  const std::shared_ptr<CalibrateCall> call_;
};

using ModelReactor =
    CallReactor<grpc::ServerWriteReactor<v1::CalibrateProgress>>;

// Reads chunks as long as there is room for them.
class StreamReactor
    : public CallReactor<
          grpc::ServerBidiReactor<v1::CalibrateChunk, v1::CalibrateProgress>> {
 public:
  explicit StreamReactor(std::shared_ptr<CancelToken> token)
      : CallReactor(std::move(token), [this]() { StartRead(&chunk_); }) {}

  void Start() { StartRead(&chunk_); }

  void OnReadDone(bool ok) override {
    if (!ok) return call()->chunks().Close();
    if (call()->chunks().Push(std::move(chunk_))) StartRead(&chunk_);
  }

 private:
  v1::CalibrateChunk chunk_;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_CALIBRATE_CALL_H_
