#include "services/calibration/engine_source.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/calibration/engine_errors.h"
#include "services/calibration/memory_need.h"
#include "spdlog/spdlog.h"

namespace ratequant::calibration {
namespace {

// Slots let the engine run ahead of the sweep; more than a few buy nothing.
// With one, they take turns.
constexpr uint64_t kMaxSlots = 8;
constexpr uint64_t kMinSlots = 2;
constexpr uint64_t kSegmentTarget = uint64_t{256} << 20;

// What the engine says of itself.
v1::CaptureInfo InfoOf(const HelloMessage& hello) {
  v1::CaptureInfo info;
  info.set_dtype(hello.dtype);
  info.set_device(hello.device);
  info.set_model_digest(hello.model_digest);
  info.set_tokenizer_digest(hello.tokenizer_digest);
  info.set_token_digest(hello.token_digest);
  info.mutable_software()->Assign(hello.software.begin(), hello.software.end());
  return info;
}

uint64_t SlotCount(uint64_t slot_bytes, uint64_t most, uint32_t layers) {
  const uint64_t fit = kSegmentTarget / slot_bytes;
  const uint64_t wanted = std::clamp(fit, kMinSlots, kMaxSlots);
  // One slot more than a sequence has layers is never used.
  return std::min({wanted, most, uint64_t{layers} + 1});
}

}  // namespace

EngineSource::EngineSource(const EngineOptions& options,
                           const CalibrationPlan& plan,
                           const std::string& model_path,
                           const std::string& text, const CancelToken& cancel)
    : options_(options),
      plan_(plan),
      model_path_(model_path),
      text_(text),
      cancel_(cancel) {}

EngineSource::~EngineSource() = default;

absl::StatusOr<CaptureShape> EngineSource::Open() {
  absl::Status started = Start();
  if (!started.ok()) return started;
  auto hello = ReceiveHello();
  if (!hello.ok()) return hello.status();
  absl::Status checked = CheckHello(*hello);
  if (!checked.ok()) return checked;
  hello_ = *std::move(hello);
  text_file_.reset();  // It has been read.
  shape_.geometry = hello_.geometry;
  absl::Status made = MakeSegment();
  if (!made.ok()) return made;
  layers_ =
      std::make_unique<LayerTracker>(plan_.sequences, shape_.geometry.layers());
  return shape_;
}

absl::Status EngineSource::Start() {
  auto text = MemoryFile::CreateWith("ratequant-text", text_);
  if (!text.ok()) return EngineWithoutMemory(text.status());
  text_file_ = *std::move(text);
  std::vector<std::string> command = options_.command;
  const std::string arguments[] = {"--model",
                                   model_path_,
                                   "--text",
                                   text_file_->path(),
                                   "--sequences",
                                   absl::StrCat(plan_.sequences),
                                   "--sequence-length",
                                   absl::StrCat(plan_.sequence_length)};
  command.insert(command.end(), std::begin(arguments), std::end(arguments));
  if (plan_.attention_output) command.push_back("--attention-output");
  auto process = EngineProcess::Start(command);
  if (!process.ok()) return EngineNotStarted(process.status());
  process_ = *std::move(process);
  spdlog::debug("engine {} started for {}", process_->pid(), model_path_);
  return absl::OkStatus();
}

// The next message; an `error` is turned into its status.
absl::StatusOr<EngineMessage> EngineSource::Receive() {
  const absl::Time deadline = absl::Now() + options_.stall_timeout;
  while (queue_.empty()) {
    const absl::Duration left = deadline - absl::Now();
    const bool stalling = left < options_.timeout;
    auto line = process_->ReadLine(stalling ? left : options_.timeout, cancel_);
    if (!line.ok()) return ReadError(line.status(), stalling);
    absl::Status queued = Enqueue(*line);
    if (!queued.ok()) return queued;
  }
  EngineMessage message = std::move(queue_.front());
  queue_.pop_front();
  if (const auto* error = std::get_if<ErrorMessage>(&message)) {
    return EngineReported(*error);
  }
  return message;
}

absl::Status EngineSource::Enqueue(const std::string& line) {
  auto message = ParseEngineMessage(line);
  if (!message.ok()) return Violation(message.status().message());
  if (const auto* beat = std::get_if<HeartbeatMessage>(&*message)) {
    spdlog::debug("engine {}: {}", process_->pid(), beat->note);
    return absl::OkStatus();
  }
  if (const auto* layer = std::get_if<LayerMessage>(&*message)) {
    absl::Status held = Hold(layer->slot);
    if (!held.ok()) return held;
  }
  queue_.push_back(*std::move(message));
  return absl::OkStatus();
}

absl::Status EngineSource::Hold(uint32_t slot) {
  if (slot >= held_.size()) {
    return Violation(absl::StrCat("slot ", slot, " of ", held_.size()));
  }
  if (held_[slot]) {
    return Violation(absl::StrCat("slot ", slot, " before it was released"));
  }
  held_[slot] = true;
  return absl::OkStatus();
}

absl::StatusOr<HelloMessage> EngineSource::ReceiveHello() {
  auto message = Receive();
  if (!message.ok()) return message.status();
  HelloMessage* hello = std::get_if<HelloMessage>(&*message);
  if (hello == nullptr) return Violation("its first message isn't 'hello'");
  return std::move(*hello);
}

absl::Status EngineSource::CheckHello(const HelloMessage& hello) {
  if (hello.sequences != plan_.sequences ||
      hello.sequence_length != plan_.sequence_length) {
    return Violation(absl::StrCat("asked for ", plan_.sequences, " x ",
                                  plan_.sequence_length,
                                  " tokens it announces ", hello.sequences,
                                  " x ", hello.sequence_length));
  }
  auto dtype = ParseDType(hello.dtype);
  if (!dtype.ok()) return Violation(dtype.status().message());
  shape_.dtype = *dtype;
  if (auto problem = CheckProvenance(InfoOf(hello))) {
    return Violation(
        absl::StrCat("its ", problem->field, " ", problem->description));
  }
  return CheckGeometry(hello.geometry, plan_);
}

absl::Status EngineSource::MakeSegment() {
  layout_ = LayerLayout(plan_, shape_.geometry, shape_.dtype);
  const uint64_t slot_bytes = layout_.bytes();
  auto most = LayersInMemory(plan_, shape_.geometry, slot_bytes);
  if (!most.ok()) return most.status();
  const uint64_t slots = SlotCount(slot_bytes, *most, shape_.geometry.layers());
  auto segment = MemoryFile::Create("ratequant-capture", slots * slot_bytes);
  if (!segment.ok()) return EngineWithoutMemory(segment.status());
  segment_ = *std::move(segment);
  held_.assign(slots, false);
  return process_->Write(
      StartMessage(segment_->path(), static_cast<uint32_t>(slots), slot_bytes));
}

absl::StatusOr<absl::optional<CapturedLayer>> EngineSource::Next() {
  absl::Status released = Release();
  if (!released.ok()) return released;
  for (;;) {
    auto message = Receive();
    if (!message.ok()) return message.status();
    if (const auto* layer = std::get_if<LayerMessage>(&*message)) {
      auto taken = TakeLayer(*layer);
      if (!taken.ok()) return taken.status();
      return absl::make_optional(*taken);
    }
    if (const auto* sequence = std::get_if<SequenceMessage>(&*message)) {
      absl::Status ended = EndSequence(*sequence);
      if (!ended.ok()) return ended;
      continue;
    }
    const auto* done = std::get_if<DoneMessage>(&*message);
    if (done == nullptr) return Violation("a second 'hello'");
    absl::Status ended = End(*done);
    if (!ended.ok()) return ended;
    return absl::optional<CapturedLayer>();
  }
}

absl::Status EngineSource::Release() {
  if (!current_.has_value()) return absl::OkStatus();
  // What was said up to now was said while the slot was still ours: an engine
  // that has filled it again is found out here.
  while (absl::optional<std::string> line = process_->TryReadLine()) {
    absl::Status queued = Enqueue(*line);
    if (!queued.ok()) return queued;
  }
  const uint32_t slot = *std::exchange(current_, absl::nullopt);
  held_[slot] = false;
  absl::Status written = process_->Write(ReleaseMessage(slot));
  return written.ok() ? written : Violation(written.message());
}

absl::StatusOr<CapturedLayer> EngineSource::TakeLayer(
    const LayerMessage& message) {
  absl::Status begun = layers_->Begin(message.sequence, message.layer);
  if (!begun.ok()) return Violation(begun.message());
  current_ = message.slot;
  CapturedLayer layer;
  layer.sequence = message.sequence;
  layer.layer = message.layer;
  layout_.Place(segment_->data() + message.slot * layout_.bytes(), layer);
  if (plan_.attention_output) {
    auto attention = ToAttentionParams(message.attention, shape_.geometry);
    if (!attention.ok()) return Violation(attention.status().message());
    layer.attention = *attention;
  }
  return layer;
}

absl::Status EngineSource::EndSequence(const SequenceMessage& message) {
  if (!std::isfinite(message.loss_sum) || message.loss_sum < 0 ||
      message.loss_tokens == 0) {
    return Violation(absl::StrCat("a loss of ", message.loss_sum, " nats over ",
                                  message.loss_tokens, " tokens"));
  }
  absl::Status ended = layers_->EndSequence(message.sequence);
  if (!ended.ok()) return Violation(ended.message());
  loss_sum_ += message.loss_sum;
  loss_tokens_ += message.loss_tokens;
  return absl::OkStatus();
}

// Everything has arrived: how the engine goes no longer matters, only that it
// goes.
absl::Status EngineSource::End(const DoneMessage& message) {
  if (!layers_->complete()) {
    return Violation(absl::StrCat("'done' after ", layers_->sequence(), " of ",
                                  plan_.sequences, " sequences"));
  }
  spdlog::info("engine {} for {} had at most {} MiB in memory, {} MiB on GPUs",
               process_->pid(), model_path_, message.peak_memory >> 20,
               message.peak_device_memory >> 20);
  const auto exit = process_->WaitForExit(options_.exit_patience, cancel_);
  if (!exit.has_value()) {
    spdlog::warn("engine {} did not exit after 'done' and is killed",
                 process_->pid());
  } else if (!exit->clean()) {
    spdlog::warn("engine {} ended after 'done' with {}", process_->pid(),
                 exit->ToString());
  }
  process_->Kill();
  return cancel_.status();
}

v1::CaptureInfo EngineSource::Info() const {
  v1::CaptureInfo info = InfoOf(hello_);
  info.set_sequences(plan_.sequences);
  info.set_sequence_length(plan_.sequence_length);
  info.set_sink_tokens(plan_.sink_tokens);
  info.set_mean_nll(loss_tokens_ == 0 ? 0 : loss_sum_ / loss_tokens_);
  return info;
}

absl::Status EngineSource::Violation(absl::string_view what) const {
  return EngineViolation(what, LastWords());
}

// Why there is no next line. `stalled`: the patience was what was left of the
// time for heartbeats.
absl::Status EngineSource::ReadError(const absl::Status& status, bool stalled) {
  if (absl::IsOutOfRange(status)) return OutputEnded();
  if (absl::IsInvalidArgument(status)) return Violation(status.message());
  absl::Status cancelled = cancel_.status();
  if (!cancelled.ok()) return cancelled;
  if (!stalled)
    return EngineHung("said nothing", options_.timeout, LastWords());
  return EngineHung("sent nothing but heartbeats", options_.stall_timeout,
                    LastWords());
}

// The engine's output ended before 'done'.
absl::Status EngineSource::OutputEnded() {
  const auto exit = process_->WaitForExit(options_.exit_patience, cancel_);
  absl::Status cancelled = cancel_.status();
  if (!cancelled.ok()) return cancelled;
  if (!exit.has_value()) return Violation("it closed its output and stayed");
  return EngineDied(*exit, LastWords());
}

std::string EngineSource::LastWords() const {
  const std::string tail = process_->StderrTail();
  if (!tail.empty()) {
    spdlog::error("engine {} said last:\n{}", process_->pid(), tail);
  }
  return tail;
}

}  // namespace ratequant::calibration
