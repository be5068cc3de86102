#include "services/calibration/calibration_service.h"

#include <chrono>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/calibration/calibration_metrics.h"
#include "services/calibration/calibration_run.h"
#include "services/calibration/progress.h"
#include "services/calibration/stream_source.h"
#include "services/calibration/ticker.h"
#include "services/common/status.h"
#include "spdlog/spdlog.h"

namespace ratequant::calibration {
namespace {

constexpr std::chrono::milliseconds kProgressPeriod(500);

absl::Status ShuttingDown() {
  return MakeError(absl::StatusCode::kUnavailable, "WORKER_SHUTTING_DOWN",
                   "the worker is shutting down; try again");
}

bool IsBlank(const std::string& text) {
  return absl::StripAsciiWhitespace(text).empty();
}

absl::Status StreamSilent(const absl::Status& status) {
  return MakeError(absl::StatusCode::kDeadlineExceeded, "ENGINE_HUNG",
                   absl::StrCat("the stream went silent before its end: ",
                                status.message()));
}

ChunkReader MakeReader(CalibrateCall& call, absl::Duration patience) {
  return [&call,
          patience]() -> absl::StatusOr<absl::optional<v1::CalibrateChunk>> {
    auto chunk = call.chunks().Pop(patience, call.cancel());
    const bool silent =
        absl::IsDeadlineExceeded(chunk.status()) && call.cancel().status().ok();
    if (silent) return StreamSilent(chunk.status());
    return chunk;
  };
}

v1::CalibrateProgress QueuedProgress(const JobQueue::Place& place,
                                     absl::Duration elapsed) {
  v1::CalibrateProgress progress;
  progress.set_phase(v1::CalibrateProgress::QUEUED);
  progress.set_queue_position(static_cast<uint32_t>(place.position));
  SetDuration(elapsed, progress.mutable_elapsed());
  if (place.wait.has_value()) {
    SetDuration(*place.wait, progress.mutable_expected_wait());
  }
  return progress;
}

// Every error a client may get has a reason.
absl::Status WithReason(const absl::Status& status) {
  if (absl::IsCancelled(status) || !ErrorReason(status).empty()) return status;
  return MakeError(absl::StatusCode::kInternal, "INTERNAL", status.message());
}

double Seconds(const google::protobuf::Duration& duration) {
  return duration.seconds() + duration.nanos() * 1e-9;
}

void Log(const absl::StatusOr<v1::CalibrateProgress>& outcome) {
  if (!outcome.ok()) {
    spdlog::warn("calibration failed: {} {}: {}",
                 absl::StatusCodeToString(outcome.status().code()),
                 ErrorReason(outcome.status()),
                 std::string(outcome.status().message()));
    return;
  }
  spdlog::info("{} {}, {} tokens in {:.1f} s, {:.1f} s of it in the sweep",
               outcome->calibration(),
               outcome->published() ? "published" : "kept in the spool",
               outcome->tokens_total(), Seconds(outcome->elapsed()),
               Seconds(outcome->sweep_time()));
}

}  // namespace

CalibrationService::CalibrationService(ModelRoot model_root,
                                       EngineOptions engine,
                                       const SweepExecution& execution,
                                       const JobQueue::Options& queue,
                                       uint64_t memory_limit,
                                       Publisher& publisher, CallGate& gate)
    : model_root_(std::move(model_root)),
      engine_(std::move(engine)),
      execution_(execution),
      memory_share_(memory_limit / queue.max_concurrent),
      publisher_(publisher),
      gate_(gate),
      queue_(queue) {
  CalibrationMetrics::Get();  // so that they are there from the start
  samples_ = Metrics::Get().Sample([this](MetricSamples* out) {
    out->Gauge("ratequant_queue_waiting", "Calibrations that wait",
               queue_.waiting());
    out->Gauge("ratequant_queue_running", "Calibrations that run",
               queue_.running());
    out->Gauge("ratequant_queue_capacity", "Most calibrations that may wait",
               queue_.options().max_waiting);
  });
}

grpc::ServerWriteReactor<v1::CalibrateProgress>*
CalibrationService::CalibrateModel(grpc::CallbackServerContext* context,
                                   const v1::CalibrateModelRequest* request) {
  auto token = CancelToken::Create();
  auto* reactor = new ModelReactor(token.ok() ? *token : nullptr);
  const std::shared_ptr<CalibrateCall> call = reactor->call();
  if (!token.ok()) return call->End(WithReason(token.status())), reactor;
  const auto admitted = gate_.Admit(
      *context, "ratequant.v1.CalibrationService.CalibrateModel", request);
  if (!admitted.ok()) return call->End(admitted.status()), reactor;
  auto plan = Plan(request->model(), request->options(), "");
  if (!plan.ok()) return call->End(plan.status()), reactor;
  auto path = model_root_.Resolve(request->model_path());
  if (!path.ok()) return call->End(path.status()), reactor;
  if (IsBlank(request->text())) {
    return call->End(FieldError("TEXT_EMPTY", "text", "has no text")), reactor;
  }
  // gRPC keeps the request until the call has ended, which is after the work.
  Run(admitted->client(), CallIdsOf(*context), call,
      [this, call = call.get(), request, plan = *std::move(plan),
       path = *std::move(path)]() {
        return CalibrateFromEngine(plan, path, request->text(), *call);
      });
  return reactor;
}

grpc::ServerBidiReactor<v1::CalibrateChunk, v1::CalibrateProgress>*
CalibrationService::CalibrateStream(grpc::CallbackServerContext* context) {
  auto token = CancelToken::Create();
  auto* reactor = new StreamReactor(token.ok() ? *token : nullptr);
  const std::shared_ptr<CalibrateCall> call = reactor->call();
  if (!token.ok()) return call->End(WithReason(token.status())), reactor;
  const auto admitted = gate_.Admit(
      *context, "ratequant.v1.CalibrationService.CalibrateStream", nullptr);
  if (!admitted.ok()) return call->End(admitted.status()), reactor;
  reactor->Start();
  Run(admitted->client(), CallIdsOf(*context), call,
      [this, call = call.get(), admitted = *admitted]() {
        return CalibrateFromStream(admitted, *call);
      });
  return reactor;
}

absl::StatusOr<CalibrationPlan> CalibrationService::Plan(
    const std::string& model, const v1::CalibrateOptions& options,
    absl::string_view prefix) const {
  auto plan = MakePlan(model, options, prefix);
  if (plan.ok()) plan->memory_bytes = memory_share_;
  return plan;
}

void CalibrationService::Run(const std::string& client, const CallIds& ids,
                             const std::shared_ptr<CalibrateCall>& call,
                             Job job) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (stopped_) return lock.unlock(), call->End(ShuttingDown());
  const absl::Time begin = absl::Now();
  JobQueue::Job queued;
  queued.client = client;
  queued.run = [call, ids, job = std::move(job)]() {
    const CallScope scope(ids);
    const absl::Time start = absl::Now();
    call->Begin();
    Outcome outcome = job();
    CalibrationMetrics::Get().Ended(outcome, absl::Now() - start);
    if (!outcome.ok()) outcome = WithReason(outcome.status());
    Log(outcome);
    return [call, outcome = std::move(outcome)]() { call->End(outcome); };
  };
  queued.moved = [call, begin](const JobQueue::Place& place) {
    call->OfferPlace(QueuedProgress(place, absl::Now() - begin));
  };
  const uint64_t number = queue_.Add(std::move(queued));
  if (number == 0) return lock.unlock(), call->End(Busy());
  std::erase_if(calls_, [](const auto& known) { return known.expired(); });
  calls_.push_back(call);
  lock.unlock();
  // Weak: the call keeps what it is given here.
  call->OnCancel([this, number, weak = std::weak_ptr<CalibrateCall>(call)]() {
    const auto waiting = weak.lock();
    if (waiting != nullptr && queue_.Remove(number)) {
      waiting->End(waiting->cancel().status());
    }
  });
}

absl::Status CalibrationService::Busy() const {
  const absl::Duration wait = queue_.ExpectedWait().value_or(absl::Seconds(30));
  return WithRetryDelay(
      MakeError(absl::StatusCode::kResourceExhausted, "WORKER_BUSY",
                "as many calibrations wait as the worker lets wait; try again "
                "later"),
      wait);
}

CalibrationService::Outcome CalibrationService::CalibrateFromEngine(
    const CalibrationPlan& plan, const std::string& model_path,
    const std::string& text, CalibrateCall& call) {
  EngineSource source(engine_, plan, model_path, text, call.cancel());
  return Calibrate(plan, source, call);
}

CalibrationService::Outcome CalibrationService::CalibrateFromStream(
    const AdmittedCall& admitted, CalibrateCall& call) {
  const ChunkReader reader = MakeReader(call, engine_.timeout);
  auto header = ReadHeader(reader);
  if (!header.ok()) return header.status();
  absl::Status allowed = admitted.CheckModel(header->model());
  if (!allowed.ok()) return allowed;
  auto plan = Plan(header->model(), header->options(), "header.");
  if (!plan.ok()) return plan.status();
  StreamSource source(*plan, *std::move(header), reader);
  return Calibrate(*plan, source, call);
}

CalibrationService::Outcome CalibrationService::Calibrate(
    const CalibrationPlan& plan, CaptureSource& source, CalibrateCall& call) {
  Progress* shown = nullptr;
  Progress progress(
      absl::Now, [&call, &shown]() { call.stream().Offer(shown->Snapshot()); });
  shown = &progress;
  call.stream().Offer(progress.Snapshot());
  Ticker ticker(kProgressPeriod, [&call, &progress]() {
    call.stream().Offer(progress.Snapshot());
  });
  auto calibration =
      RunCalibration(plan, execution_, source, progress, call.cancel());
  if (!calibration.ok()) return calibration.status();
  progress.SetPhase(v1::CalibrateProgress::PUBLISHING);
  auto published = publisher_.Publish(*calibration, call.cancel());
  if (!published.ok()) return published.status();

  v1::CalibrateProgress done = progress.Snapshot();
  done.set_phase(v1::CalibrateProgress::DONE);
  done.set_calibration(calibration->name());
  done.set_published(*published);
  *done.mutable_warnings() = calibration->warnings();
  return done;
}

void CalibrationService::Stop(absl::Duration grace) {
  std::vector<std::shared_ptr<CalibrateCall>> calls;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopped_ = true;
    for (const auto& known : calls_) {
      if (auto call = known.lock()) calls.push_back(std::move(call));
    }
  }
  for (const auto& call : calls) call->CancelWaiting(ShuttingDown());
  if (!queue_.WaitIdle(absl::Now() + grace)) {
    for (const auto& call : calls) call->Cancel(ShuttingDown());
  }
  calls.clear();
  queue_.WaitIdle(absl::InfiniteFuture());
}

}  // namespace ratequant::calibration
