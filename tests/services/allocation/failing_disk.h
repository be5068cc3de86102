#ifndef RATEQUANT_TESTS_SERVICES_ALLOCATION_FAILING_DISK_H_
#define RATEQUANT_TESTS_SERVICES_ALLOCATION_FAILING_DISK_H_

#include <atomic>
#include <memory>

#include "rocksdb/env.h"

namespace ratequant::testing {

// A RocksDB environment over the real file system whose writes can be made to
// fail. Thread-safe.
class FailingDisk {
 public:
  enum class Mode { kWorks, kNoSpace, kBroken };

  FailingDisk();

  // What every later write and sync does, and whether there is room.
  void Set(Mode mode) { *mode_ = mode; }

  rocksdb::Env* env() { return env_.get(); }

 private:
  std::shared_ptr<std::atomic<Mode>> mode_;
  std::unique_ptr<rocksdb::Env> env_;
};

}  // namespace ratequant::testing

#endif  // RATEQUANT_TESTS_SERVICES_ALLOCATION_FAILING_DISK_H_
