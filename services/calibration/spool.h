#ifndef RATEQUANT_SERVICES_CALIBRATION_SPOOL_H_
#define RATEQUANT_SERVICES_CALIBRATION_SPOOL_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ratequant/v1/calibration.pb.h"
#include "services/common/metrics.h"

namespace ratequant::calibration {

// Calibrations that wait on disk for the allocator, one file each, named
// `{model}--{digest}.calibration`. A file is there whole or not at all, and
// survives a power cut once Put has returned. Thread-safe; a folder belongs to
// one Spool at a time in the whole system.
class Spool {
 public:
  // Opens `folder`, making it when it is missing, and removes what an earlier
  // process left half-written. FAILED_PRECONDITION: SPOOL_UNUSABLE with the
  // system's words, SPOOL_IN_USE when another process has it.
  static absl::StatusOr<std::unique_ptr<Spool>> Open(const std::string& folder);

  ~Spool();
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  // Writes a calibration (its name filled in) durably. RESOURCE_EXHAUSTED
  // (SPOOL_UNWRITABLE) with the system's words, for example on a full disk;
  // nothing is left behind then.
  absl::Status Put(const v1::Calibration& calibration);

  // Files that wait, sorted by name.
  absl::StatusOr<std::vector<std::string>> List() const;

  // Reads a listed file. DATA_LOSS when its content doesn't match its name.
  absl::StatusOr<v1::Calibration> Read(const std::string& file) const;

  // Removes a published file.
  absl::Status Remove(const std::string& file);

  // Moves a file that can't be published to the folder `refused` inside the
  // spool, where it isn't listed and a person finds it.
  absl::Status SetAside(const std::string& file);

  // Samples of how many wait and since when, how many were set aside, and of
  // the disk.
  void AddSamples(MetricSamples* out) const;

 private:
  Spool(std::string folder, int lock_fd);

  std::string PathOf(const std::string& file) const;
  absl::Status RemoveTemporaries();
  absl::Status SyncFolder() const;

  const std::string folder_;
  const int lock_fd_;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_SPOOL_H_
