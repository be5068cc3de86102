#ifndef RATEQUANT_TESTS_SERVICES_ALLOCATION_ALLOCATOR_PROCESS_H_
#define RATEQUANT_TESTS_SERVICES_ALLOCATION_ALLOCATOR_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <vector>

namespace ratequant::testing {

// A ratequant-allocator as a process of its own, from $RATEQUANT_BIN_DIR.
class AllocatorProcess {
 public:
  // Starts it with these arguments; standard error goes to `log_file`.
  AllocatorProcess(const std::vector<std::string>& arguments,
                   const std::string& log_file);

  // Kills it when it still runs.
  ~AllocatorProcess();
  AllocatorProcess(const AllocatorProcess&) = delete;
  AllocatorProcess& operator=(const AllocatorProcess&) = delete;

  // Waits for the port file and returns "127.0.0.1:port"; "" when the process
  // ended or half a minute passed.
  std::string WaitForAddress(const std::string& port_file);

  // -1 once it has ended.
  pid_t pid() const { return pid_; }

  void Signal(int signal) const;

  // Waits for the end. The exit code, or 128 + the signal that killed it.
  int Wait();

  // What it wrote to standard error and output so far.
  std::string Log() const;

 private:
  const std::string log_file_;
  pid_t pid_ = -1;
  int exit_code_ = -1;
};

}  // namespace ratequant::testing

#endif  // RATEQUANT_TESTS_SERVICES_ALLOCATION_ALLOCATOR_PROCESS_H_
