#include "tests/services/allocation/failing_disk.h"

#include <string>
#include <utility>

#include "rocksdb/file_system.h"

namespace ratequant::testing {
namespace {

using rocksdb::FSWritableFile;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;
using Mode = FailingDisk::Mode;
using SharedMode = std::shared_ptr<std::atomic<Mode>>;

IOStatus Failure(Mode mode) {
  return mode == Mode::kNoSpace ? IOStatus::NoSpace("injected: disk full")
                                : IOStatus::IOError("injected: disk broken");
}

class File : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  File(std::unique_ptr<FSWritableFile> file, SharedMode mode)
      : FSWritableFileOwnerWrapper(std::move(file)), mode_(std::move(mode)) {}

  IOStatus Append(const Slice& data, const IOOptions& options,
                  IODebugContext* debug) override {
    if (*mode_ != Mode::kWorks) return Failure(*mode_);
    return FSWritableFileOwnerWrapper::Append(data, options, debug);
  }
  IOStatus Append(const Slice& data, const IOOptions& options,
                  const rocksdb::DataVerificationInfo& info,
                  IODebugContext* debug) override {
    if (*mode_ != Mode::kWorks) return Failure(*mode_);
    return FSWritableFileOwnerWrapper::Append(data, options, info, debug);
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    if (*mode_ != Mode::kWorks) return Failure(*mode_);
    return FSWritableFileOwnerWrapper::Sync(options, debug);
  }

 private:
  const SharedMode mode_;
};

class Disk : public rocksdb::FileSystemWrapper {
 public:
  explicit Disk(SharedMode mode)
      : FileSystemWrapper(rocksdb::FileSystem::Default()),
        mode_(std::move(mode)) {}

  const char* Name() const override { return "FailingDisk"; }

  // A full disk has no room, which is what RocksDB waits for to change.
  IOStatus GetFreeSpace(const std::string& path, const IOOptions& options,
                        uint64_t* free, IODebugContext* debug) override {
    if (*mode_ != Mode::kNoSpace) {
      return target()->GetFreeSpace(path, options, free, debug);
    }
    *free = 0;
    return IOStatus::OK();
  }

  IOStatus NewWritableFile(const std::string& name,
                           const rocksdb::FileOptions& options,
                           std::unique_ptr<FSWritableFile>* file,
                           IODebugContext* debug) override {
    if (*mode_ != Mode::kWorks) return Failure(*mode_);
    IOStatus status =
        FileSystemWrapper::NewWritableFile(name, options, file, debug);
    if (status.ok()) *file = std::make_unique<File>(std::move(*file), mode_);
    return status;
  }

 private:
  const SharedMode mode_;
};

}  // namespace

FailingDisk::FailingDisk()
    : mode_(std::make_shared<std::atomic<Mode>>(Mode::kWorks)),
      env_(rocksdb::NewCompositeEnv(std::make_shared<Disk>(mode_))) {}

}  // namespace ratequant::testing
