#ifndef RATEQUANT_TESTS_CLIENTS_PROCESS_H_
#define RATEQUANT_TESTS_CLIENTS_PROCESS_H_

#include <sys/types.h>

#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"

namespace ratequant::testing {

// Path of a built program, in $RATEQUANT_BIN_DIR.
std::string Program(const std::string& name);

struct ProcessOptions {
  // Added to the environment. NO_COLOR, locale, terminal, home and RATEQUANT_*
  // variables are not inherited.
  std::map<std::string, std::string> environment = {};
  // Runs it on a pseudo terminal of 100 columns: both outputs come as `out`.
  bool terminal = false;
  std::string input = {};
};

struct ProcessResult {
  int exit_code = -1;  // 128 + number after a signal
  std::string out;
  std::string err;
};

// A child process whose outputs are collected.
class Process {
 public:
  Process(const std::vector<std::string>& command,
          const ProcessOptions& options = {});
  // Kills it when it still runs.
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void Signal(int number);

  // Waits for the end; kills it and fails the test after `timeout`.
  ProcessResult Wait(absl::Duration timeout = absl::Seconds(60));

 private:
  pid_t pid_ = -1;
  bool ended_ = false;
  ProcessResult result_;
  std::thread out_reader_;
  std::thread err_reader_;
};

// Runs bin/ratequant to its end.
ProcessResult RunRateQuant(const std::vector<std::string>& arguments,
                           const ProcessOptions& options = {});

}  // namespace ratequant::testing

#endif  // RATEQUANT_TESTS_CLIENTS_PROCESS_H_
