#include "services/common/shutdown_signal.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

namespace ratequant {
namespace {

// The self-pipe trick: only write() is safe inside a handler.
int g_pipe[2] = {-1, -1};

void OnSignal(int signal) {
  const int saved = errno;
  const char number = static_cast<char>(signal);
  if (write(g_pipe[1], &number, 1) < 0) {
    // The pipe holds thousands of signals that nobody read: one more changes
    // nothing.
  }
  errno = saved;
}

}  // namespace

ShutdownSignal::ShutdownSignal() {
  if (pipe2(g_pipe, O_CLOEXEC) != 0) g_pipe[0] = g_pipe[1] = -1;
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART | SA_RESETHAND;
  sigemptyset(&action.sa_mask);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
}

ShutdownSignal::~ShutdownSignal() {
  std::signal(SIGTERM, SIG_DFL);
  std::signal(SIGINT, SIG_DFL);
  close(g_pipe[0]);
  close(g_pipe[1]);
  g_pipe[0] = g_pipe[1] = -1;
}

int ShutdownSignal::Wait() {
  char number = 0;
  while (read(g_pipe[0], &number, 1) != 1) {
    if (errno != EINTR) return 0;
  }
  std::signal(SIGTERM, SIG_DFL);
  std::signal(SIGINT, SIG_DFL);
  return number;
}

}  // namespace ratequant
