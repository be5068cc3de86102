#include "tests/clients/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

extern char** environ;

namespace ratequant::testing {
namespace {

std::vector<std::string> Environment(const ProcessOptions& options) {
  std::vector<std::string> variables;
  for (char** at = environ; *at != nullptr; ++at) {
    std::string variable = *at;
    bool ours = absl::StartsWith(variable, "RATEQUANT_") ||
                absl::StartsWith(variable, "LC_") ||
                absl::StartsWith(variable, "LANG=") ||
                absl::StartsWith(variable, "TERM=") ||
                absl::StartsWith(variable, "NO_COLOR=") ||
                absl::StartsWith(variable, "HOME=") ||
                absl::StartsWith(variable, "XDG_CONFIG_HOME=");
    if (!ours) variables.push_back(variable);
  }
  for (const auto& [name, value] : options.environment) {
    variables.push_back(absl::StrCat(name, "=", value));
  }
  return variables;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& s : strings) pointers.push_back(s.data());
  pointers.push_back(nullptr);
  return pointers;
}

// Reads until the other end closes; a pseudo terminal then answers EIO.
void ReadAll(int fd, std::string* text) {
  char buffer[4096];
  for (ssize_t n; (n = read(fd, buffer, sizeof(buffer))) > 0;) {
    text->append(buffer, n);
  }
  close(fd);
}

}  // namespace

std::string Program(const std::string& name) {
  const char* folder = std::getenv("RATEQUANT_BIN_DIR");
  return absl::StrCat(folder == nullptr ? "build/bin" : folder, "/", name);
}

Process::Process(const std::vector<std::string>& command,
                 const ProcessOptions& options) {
  std::vector<std::string> arguments = command;
  std::vector<char*> argv = Pointers(arguments);
  std::vector<std::string> variables = Environment(options);
  std::vector<char*> envp = Pointers(variables);
  int in[2];
  int out[2];
  int err[2];
  if (options.terminal) {
    winsize size = {
        .ws_row = 40, .ws_col = 100, .ws_xpixel = 0, .ws_ypixel = 0};
    if (openpty(&out[0], &out[1], nullptr, nullptr, &size) != 0) std::abort();
  } else if (pipe2(out, O_CLOEXEC) != 0) {
    std::abort();
  }
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) std::abort();
  pid_ = fork();
  if (pid_ < 0) std::abort();
  if (pid_ == 0) {
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    dup2(options.terminal ? out[1] : err[1], STDERR_FILENO);
    if (options.terminal) {
      close(out[0]);
      close(out[1]);
    }
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  close(err[1]);
  size_t at = 0;
  while (at < options.input.size()) {
    ssize_t n =
        write(in[1], options.input.data() + at, options.input.size() - at);
    if (n <= 0) break;
    at += n;
  }
  close(in[1]);
  out_reader_ = std::thread(ReadAll, out[0], &result_.out);
  err_reader_ = std::thread(ReadAll, err[0], &result_.err);
}

Process::~Process() {
  if (!ended_) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (out_reader_.joinable()) out_reader_.join();
  if (err_reader_.joinable()) err_reader_.join();
}

void Process::Signal(int number) {
  if (!ended_) kill(pid_, number);
}

ProcessResult Process::Wait(absl::Duration timeout) {
  absl::Time deadline = absl::Now() + timeout;
  int status = 0;
  while (waitpid(pid_, &status, WNOHANG) == 0) {
    if (absl::Now() > deadline) {
      ADD_FAILURE() << "the process still runs after " << timeout;
      kill(pid_, SIGKILL);
      waitpid(pid_, &status, 0);
      break;
    }
    absl::SleepFor(absl::Milliseconds(5));
  }
  ended_ = true;
  out_reader_.join();
  err_reader_.join();
  result_.exit_code =
      WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result_;
}

ProcessResult RunRateQuant(const std::vector<std::string>& arguments,
                           const ProcessOptions& options) {
  std::vector<std::string> command = {Program("ratequant")};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return Process(command, options).Wait();
}

}  // namespace ratequant::testing
