#include "tests/services/allocation/allocator_process.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

namespace ratequant::testing {
namespace {

using namespace std::chrono_literals;  // NOLINT

std::string Program() {
  const char* folder = std::getenv("RATEQUANT_BIN_DIR");
  return std::string(folder == nullptr ? "build/bin" : folder) +
         "/ratequant-allocator";
}

int ExitCode(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

AllocatorProcess::AllocatorProcess(const std::vector<std::string>& arguments,
                                   const std::string& log_file)
    : log_file_(log_file) {
  const std::string program = Program();
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  pid_ = fork();
  if (pid_ != 0) return;
  const int log = open(log_file_.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
  dup2(log, STDERR_FILENO);
  dup2(log, STDOUT_FILENO);
  execv(program.c_str(), argv.data());
  _exit(127);
}

AllocatorProcess::~AllocatorProcess() {
  if (pid_ < 0) return;
  Signal(SIGKILL);
  Wait();
}

std::string AllocatorProcess::WaitForAddress(const std::string& port_file) {
  const auto deadline = std::chrono::steady_clock::now() + 30s;
  while (pid_ >= 0 && std::chrono::steady_clock::now() < deadline) {
    int port = 0;
    if (std::ifstream(port_file) >> port) {
      return "127.0.0.1:" + std::to_string(port);
    }
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      exit_code_ = ExitCode(status);
      pid_ = -1;
    }
    std::this_thread::sleep_for(10ms);
  }
  return "";
}

void AllocatorProcess::Signal(int signal) const {
  if (pid_ >= 0) kill(pid_, signal);
}

int AllocatorProcess::Wait() {
  if (pid_ < 0) return exit_code_;
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  exit_code_ = ExitCode(status);
  return exit_code_;
}

std::string AllocatorProcess::Log() const {
  std::ifstream in(log_file_);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

}  // namespace ratequant::testing
