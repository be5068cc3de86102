#ifndef RATEQUANT_SERVICES_CALIBRATION_CALIBRATION_SERVICE_H_
#define RATEQUANT_SERVICES_CALIBRATION_CALIBRATION_SERVICE_H_

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ratequant/v1/calibration_service.grpc.pb.h"
#include "services/calibration/calibrate_call.h"
#include "services/calibration/calibration_run.h"
#include "services/calibration/capture_source.h"
#include "services/calibration/engine_source.h"
#include "services/calibration/job_queue.h"
#include "services/calibration/model_path.h"
#include "services/calibration/plan.h"
#include "services/calibration/publisher.h"
#include "services/common/call_gate.h"
#include "services/common/metrics.h"
#include "services/common/trace.h"

namespace ratequant::calibration {

// The RPCs of ratequant.v1.CalibrationService. A few calibrations run at a
// time, some more wait for their turn, and what comes then gets
// RESOURCE_EXHAUSTED WORKER_BUSY with a time to try again. Clients are told
// apart by name and address.
class CalibrationService final
    : public v1::CalibrationService::CallbackService {
 public:
  // `publisher` and `gate` must outlive the service. A stream that says nothing
  // for `engine.timeout` is given up like an engine. `memory_limit` is what
  // captured layers and tables may take in bytes; each of the
  // `queue.max_concurrent` calibrations has an equal share of it.
  CalibrationService(ModelRoot model_root, EngineOptions engine,
                     const SweepExecution& execution,
                     const JobQueue::Options& queue, uint64_t memory_limit,
                     Publisher& publisher, CallGate& gate);

  grpc::ServerWriteReactor<v1::CalibrateProgress>* CalibrateModel(
      grpc::CallbackServerContext* context,
      const v1::CalibrateModelRequest* request) override;

  grpc::ServerBidiReactor<v1::CalibrateChunk, v1::CalibrateProgress>*
  CalibrateStream(grpc::CallbackServerContext* context) override;

  // Answers UNAVAILABLE WORKER_SHUTTING_DOWN from now on, also to calls that
  // wait. Those that run may finish within `grace`, and get the same answer
  // then. Returns when none runs. A calibration that is measured and waits for
  // the allocator is spooled and answered.
  void Stop(absl::Duration grace);

 private:
  using Outcome = absl::StatusOr<v1::CalibrateProgress>;
  using Job = std::function<Outcome()>;

  absl::StatusOr<CalibrationPlan> Plan(const std::string& model,
                                       const v1::CalibrateOptions& options,
                                       absl::string_view prefix) const;
  void Run(const std::string& client, const CallIds& ids,
           const std::shared_ptr<CalibrateCall>& call, Job job);
  absl::Status Busy() const;
  Outcome CalibrateFromEngine(const CalibrationPlan& plan,
                              const std::string& model_path,
                              const std::string& text, CalibrateCall& call);
  Outcome CalibrateFromStream(const AdmittedCall& admitted,
                              CalibrateCall& call);
  Outcome Calibrate(const CalibrationPlan& plan, CaptureSource& source,
                    CalibrateCall& call);

  const ModelRoot model_root_;
  const EngineOptions engine_;
  const SweepExecution execution_;
  const uint64_t memory_share_;  // bytes of one calibration
  Publisher& publisher_;
  CallGate& gate_;
  std::mutex mutex_;
  std::vector<std::weak_ptr<CalibrateCall>> calls_;  // that may not have ended
  bool stopped_ = false;
  JobQueue queue_;  // its threads use what is before it
  std::shared_ptr<void> samples_;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_CALIBRATION_SERVICE_H_
