#ifndef RATEQUANT_SERVICES_CALIBRATION_ENGINE_SOURCE_H_
#define RATEQUANT_SERVICES_CALIBRATION_ENGINE_SOURCE_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/calibration/cancel_token.h"
#include "services/calibration/capture_source.h"
#include "services/calibration/engine_message.h"
#include "services/calibration/engine_process.h"
#include "services/calibration/layer_layout.h"
#include "services/calibration/layer_tracker.h"
#include "services/calibration/memory_file.h"
#include "services/calibration/plan.h"

namespace ratequant::calibration {

// How a capture engine is started and watched.
struct EngineOptions {
  std::vector<std::string> command;  // program and its first arguments
  // The longest the engine may say nothing.
  absl::Duration timeout = absl::Seconds(120);
  // The longest it may send nothing but heartbeats: a thread that beats doesn't
  // prove that the one that works does.
  absl::Duration stall_timeout = absl::Minutes(30);
  // How long an engine that is done, or that closed its output, may take to
  // exit before it is killed.
  absl::Duration exit_patience = absl::Seconds(5);
};

// Runs a capture engine (ENGINE.md) as a child process and hands on what it
// writes into shared memory. Destroying it kills the engine's process group and
// frees the memory.
//
// Every failure is an error with a reason: the engine's own (MODEL_UNREADABLE,
// UNSUPPORTED_MODEL, TEXT_EMPTY, TEXT_TOO_SHORT), ENGINE_CRASHED,
// ENGINE_OUT_OF_MEMORY, ENGINE_HUNG, and ENGINE_ERROR for a breach of the
// protocol. The end of the engine's standard error is part of the message. What
// the engine announces and doesn't fit into the plan's memory is
// MEMORY_LIMIT_EXCEEDED.
class EngineSource : public CaptureSource {
 public:
  // `model_path` and `text` are what the engine reads. `cancel` must outlive
  // the source; raising it ends a call that waits, with its status.
  EngineSource(const EngineOptions& options, const CalibrationPlan& plan,
               const std::string& model_path, const std::string& text,
               const CancelToken& cancel);
  ~EngineSource() override;

  absl::StatusOr<CaptureShape> Open() override;
  absl::StatusOr<absl::optional<CapturedLayer>> Next() override;
  v1::CaptureInfo Info() const override;

 private:
  absl::Status Start();
  absl::StatusOr<EngineMessage> Receive();
  absl::Status Enqueue(const std::string& line);
  absl::Status Hold(uint32_t slot);
  absl::StatusOr<HelloMessage> ReceiveHello();
  absl::Status CheckHello(const HelloMessage& hello);
  absl::Status MakeSegment();
  absl::Status Release();
  absl::StatusOr<CapturedLayer> TakeLayer(const LayerMessage& message);
  absl::Status EndSequence(const SequenceMessage& message);
  absl::Status End(const DoneMessage& message);

  absl::Status Violation(absl::string_view what) const;
  absl::Status OutputEnded();
  absl::Status ReadError(const absl::Status& status, bool stalled);
  std::string LastWords() const;

  const EngineOptions options_;
  const CalibrationPlan plan_;
  const std::string model_path_;
  const std::string& text_;
  const CancelToken& cancel_;

  std::unique_ptr<MemoryFile> text_file_;
  std::unique_ptr<MemoryFile> segment_;
  HelloMessage hello_;
  CaptureShape shape_;
  LayerLayout layout_;
  std::deque<EngineMessage> queue_;   // received, not yet looked at
  std::vector<bool> held_;            // [slots] sent to us and not released
  absl::optional<uint32_t> current_;  // slot that Next handed out
  std::unique_ptr<LayerTracker> layers_;
  double loss_sum_ = 0;
  uint64_t loss_tokens_ = 0;
  // Last: the engine dies before the memory it uses goes.
  std::unique_ptr<EngineProcess> process_;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_ENGINE_SOURCE_H_
