#include "clients/cpp/examples/decode_loop/engine.h"

#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ratequant::examples {
namespace {

absl::Status CheckOptions(const EngineOptions& options, int tokens) {
  if (options.decode_tokens < 1 || options.decode_tokens >= tokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "can't decode ", options.decode_tokens, " tokens of sequences of ",
        tokens, "; supported are 1 to ", tokens - 1));
  }
  if (options.concurrency < 1 || options.requests < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "can't serve ", options.requests, " requests, ", options.concurrency,
        " at a time; supported are 0 or more, 1 or more at a time"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(
    const replay::CaptureFile& capture, const EngineOptions& options,
    std::shared_ptr<const client::LoadedBitMap> first, TakeUpdate take_update) {
  absl::Status status = CheckOptions(options, capture.info().tokens);
  if (!status.ok()) return status;
  std::unique_ptr<Engine> engine(
      new Engine(capture, options, std::move(take_update)));
  status = engine->Adopt(std::move(first));
  if (!status.ok()) return status;
  return engine;
}

absl::Status Engine::Adopt(std::shared_ptr<const client::LoadedBitMap> map) {
  auto generation = Generation::Create(
      capture_, std::move(map), options_.concurrency, options_.decode_tokens);
  if (!generation.ok()) return generation.status();
  generations_.push_back(*std::move(generation));
  return absl::OkStatus();
}

absl::StatusOr<StepResult> Engine::Step() {
  StepResult result;
  if (auto update = take_update_()) {
    result.refused = Adopt(update);
    if (result.refused.ok()) result.adopted = std::move(update);
  }
  const absl::Status admitted = AdmitRequests();
  if (!admitted.ok()) return admitted;
  for (const auto& generation : generations_) {
    auto finished = generation->Step();
    if (!finished.ok()) return finished.status();
    served_ += static_cast<int64_t>(finished->size());
    std::move(finished->begin(), finished->end(),
              std::back_inserter(result.finished));
  }
  DropIdle();
  return result;
}

absl::Status Engine::AdmitRequests() {
  const auto more = [this] {
    return admitted_ - served_ < options_.concurrency &&
           (options_.requests == 0 || admitted_ < options_.requests);
  };
  while (more()) {
    const int sequence =
        static_cast<int>(admitted_ % capture_.info().sequences);
    const absl::Status status = generations_.back()->Admit(admitted_, sequence);
    if (!status.ok()) return status;
    ++admitted_;
  }
  return absl::OkStatus();
}

void Engine::DropIdle() {
  std::vector<std::unique_ptr<Generation>> kept;
  for (auto& generation : generations_) {
    const bool newest = generation == generations_.back();
    if (newest || generation->running() > 0) {
      kept.push_back(std::move(generation));
    }
  }
  generations_ = std::move(kept);
}

}  // namespace ratequant::examples
