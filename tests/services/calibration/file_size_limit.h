#ifndef RATEQUANT_TESTS_SERVICES_CALIBRATION_FILE_SIZE_LIMIT_H_
#define RATEQUANT_TESTS_SERVICES_CALIBRATION_FILE_SIZE_LIMIT_H_

#include <signal.h>
#include <sys/resource.h>

namespace ratequant::calibration {

// While it lives the system refuses writes beyond `bytes` of any file of this
// process, as on a full disk, whoever runs the test.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    old_handler_ = signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old_);
    rlimit limit = {bytes, old_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &old_);
    signal(SIGXFSZ, old_handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit old_;
  sighandler_t old_handler_;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_TESTS_SERVICES_CALIBRATION_FILE_SIZE_LIMIT_H_
