#include "services/calibration/publisher.h"

#include <poll.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"
#include "spdlog/spdlog.h"

namespace ratequant::calibration {
namespace {

// The same calibration will be refused for ever. Everything else (down, full,
// slow, misconfigured) may be over tomorrow.
bool IsRefusal(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsOutOfRange(status) ||
         absl::IsFailedPrecondition(status) || absl::IsAlreadyExists(status);
}

// Worth another try within seconds.
bool IsTransient(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsAborted(status);
}

std::string Text(const absl::Status& status) {
  return std::string(status.message());
}

absl::Status Refused(const absl::Status& why) {
  return MakeError(
      absl::StatusCode::kInternal, "PUBLISH_REFUSED",
      absl::StrCat("the allocator refused the calibration: ", why.message()),
      {{"allocator_reason", ErrorReason(why)}});
}

}  // namespace

void SleepUnlessCancelled(absl::Duration time, const CancelToken& cancel) {
  pollfd fd = {cancel.fd(), POLLIN, 0};
  poll(&fd, 1, static_cast<int>(absl::ToInt64Milliseconds(time)));
}

absl::StatusOr<std::unique_ptr<Publisher>> Publisher::Start(
    std::unique_ptr<RegistryClient> registry, std::unique_ptr<Spool> spool,
    const PublisherOptions& options, Sleeper sleeper) {
  auto stop = CancelToken::Create();
  if (!stop.ok()) return stop.status();
  std::unique_ptr<Publisher> publisher(
      new Publisher(std::move(registry), std::move(spool), options,
                    std::move(sleeper), *std::move(stop)));
  if (publisher->registry_ != nullptr) {
    publisher->background_ =
        std::thread(&Publisher::RunBackground, publisher.get());
  }
  return publisher;
}

Publisher::Publisher(std::unique_ptr<RegistryClient> registry,
                     std::unique_ptr<Spool> spool,
                     const PublisherOptions& options, Sleeper sleeper,
                     std::shared_ptr<CancelToken> stop)
    : registry_(std::move(registry)),
      spool_(std::move(spool)),
      options_(options),
      sleeper_(std::move(sleeper)),
      stop_(std::move(stop)) {}

Publisher::~Publisher() {
  stop_->Cancel(absl::CancelledError("the publisher stops"));
  if (background_.joinable()) background_.join();
}

absl::StatusOr<bool> Publisher::Publish(const v1::Calibration& calibration,
                                        const CancelToken& cancel) {
  absl::Status created = TryCreate(calibration, cancel);
  if (created.ok()) return true;
  absl::Status cancelled = cancel.status();
  if (!cancelled.ok() && !absl::IsUnavailable(cancelled)) return cancelled;
  if (cancelled.ok() && IsRefusal(created)) return Refused(created);
  absl::Status kept = spool_->Put(calibration);
  if (!kept.ok()) return kept;
  spdlog::warn("{} is not published yet and waits in the spool: {}",
               calibration.name(), Text(created));
  return false;
}

void Publisher::AddSamples(MetricSamples* out) const {
  spool_->AddSamples(out);
}

absl::Status Publisher::TryCreate(const v1::Calibration& calibration,
                                  const CancelToken& cancel) {
  if (registry_ == nullptr) {
    return absl::UnavailableError("this worker has no allocator");
  }
  absl::Duration backoff = options_.first_backoff;
  for (int attempt = 1;; ++attempt) {
    absl::Status created = registry_->Create(calibration, cancel);
    if (!IsTransient(created) || attempt >= options_.attempts ||
        !cancel.status().ok()) {
      return created;
    }
    sleeper_(backoff, cancel);
    backoff *= 2;
  }
}

// Looks into the spool at least every `last_spool_backoff`, more often while
// something has failed only lately.
void Publisher::RunBackground() {
  absl::Duration backoff = options_.first_spool_backoff;
  while (stop_->status().ok()) {
    absl::Status published = PublishSpool();
    if (published.ok()) {
      backoff = options_.first_spool_backoff;
    } else {
      spdlog::warn("publishing from the spool failed, again in {}: {}",
                   absl::FormatDuration(backoff), Text(published));
    }
    sleeper_(backoff, *stop_);
    if (!published.ok()) {
      backoff = std::min(2 * backoff, options_.last_spool_backoff);
    }
  }
}

// Publishes every file of the spool. One that the registry can't take now must
// not hold up the others, unless it can't be reached at all.
absl::Status Publisher::PublishSpool() {
  auto files = spool_->List();
  if (!files.ok()) return files.status();
  absl::Status first_failure;
  for (const std::string& file : *files) {
    absl::Status published = PublishFile(file);
    first_failure.Update(published);
    if (IsTransient(published) || !stop_->status().ok()) break;
  }
  return first_failure;
}

absl::Status Publisher::PublishFile(const std::string& file) {
  auto calibration = spool_->Read(file);
  if (absl::IsDataLoss(calibration.status())) {
    SetAside(file, calibration.status());
    return absl::OkStatus();
  }
  if (!calibration.ok()) return calibration.status();
  absl::Status created = registry_->Create(*calibration, *stop_);
  if (stop_->status().ok() && IsRefusal(created)) {
    SetAside(file, created);
    return absl::OkStatus();
  }
  if (!created.ok()) return created;
  spdlog::info("{} is published from the spool", calibration->name());
  return spool_->Remove(file);
}

void Publisher::SetAside(const std::string& file, const absl::Status& why) {
  absl::Status moved = spool_->SetAside(file);
  spdlog::error("spool file {} can't be published and is set aside{}: {}", file,
                moved.ok() ? "" : absl::StrCat(" in vain (", Text(moved), ")"),
                Text(why));
}

}  // namespace ratequant::calibration
