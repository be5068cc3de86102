#ifndef RATEQUANT_SERVICES_CALIBRATION_PUBLISHER_H_
#define RATEQUANT_SERVICES_CALIBRATION_PUBLISHER_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ratequant/v1/calibration.pb.h"
#include "services/calibration/cancel_token.h"
#include "services/calibration/registry_client.h"
#include "services/calibration/spool.h"
#include "services/common/metrics.h"

namespace ratequant::calibration {

// Sleeps for a time or until the token is raised.
using Sleeper = std::function<void(absl::Duration, const CancelToken&)>;
void SleepUnlessCancelled(absl::Duration time, const CancelToken& cancel);

// How stubborn a publisher is.
struct PublisherOptions {
  int attempts = 3;  // while a client waits
  absl::Duration first_backoff = absl::Milliseconds(200);
  // In the background the wait doubles from the first to the last.
  absl::Duration first_spool_backoff = absl::Seconds(1);
  absl::Duration last_spool_backoff = absl::Seconds(30);
};

// Gets calibrations to the registry, at once or, when that doesn't work, later:
// they are kept in the spool and a background thread publishes them, also those
// an earlier process left. Thread-safe.
class Publisher {
 public:
  // Starts the background thread. Without a registry (null) everything stays in
  // the spool.
  static absl::StatusOr<std::unique_ptr<Publisher>> Start(
      std::unique_ptr<RegistryClient> registry, std::unique_ptr<Spool> spool,
      const PublisherOptions& options, Sleeper sleeper = SleepUnlessCancelled);

  // Stops the background thread; what is spooled stays spooled.
  ~Publisher();
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;

  // True when the registry has stored it, false when it is durably in the
  // spool. Errors, and then it is nowhere: INTERNAL (PUBLISH_REFUSED) when the
  // registry will never take it; RESOURCE_EXHAUSTED (SPOOL_UNWRITABLE);
  // `cancel`'s status, except that a worker that shuts down (UNAVAILABLE)
  // spools.
  absl::StatusOr<bool> Publish(const v1::Calibration& calibration,
                               const CancelToken& cancel);

  // Whether there is a registry, and whether it can be connected to.
  bool has_registry() const { return registry_ != nullptr; }
  absl::Status CheckReachable() const { return registry_->CheckReachable(); }

  // Samples of what waits in the spool.
  void AddSamples(MetricSamples* out) const;

 private:
  Publisher(std::unique_ptr<RegistryClient> registry,
            std::unique_ptr<Spool> spool, const PublisherOptions& options,
            Sleeper sleeper, std::shared_ptr<CancelToken> stop);

  absl::Status TryCreate(const v1::Calibration& calibration,
                         const CancelToken& cancel);
  void RunBackground();
  absl::Status PublishSpool();
  absl::Status PublishFile(const std::string& file);
  void SetAside(const std::string& file, const absl::Status& why);

  const std::unique_ptr<RegistryClient> registry_;
  const std::unique_ptr<Spool> spool_;
  const PublisherOptions options_;
  const Sleeper sleeper_;
  const std::shared_ptr<CancelToken> stop_;
  std::thread background_;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_PUBLISHER_H_
