#include "tests/bench/bench_server.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "empty.grpc.pb.h"
#include "services/allocation/allocator.h"
#include "services/allocation/store/memory_store.h"
#include "services/common/server.h"
#include "tests/bench/bench.h"

namespace ratequant::bench {
namespace {

class EmptyServiceImpl final : public EmptyService::CallbackService {
 public:
  grpc::ServerUnaryReactor* Get(
      grpc::CallbackServerContext* context,
      const google::protobuf::UInt32Value* request,
      google::protobuf::BytesValue* response) override {
    response->mutable_value()->assign(request->value(), 'x');
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

// Serves until it is killed; writes the port to `pipe` first.
[[noreturn]] void Serve(int pipe) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  PinThread(0);
  auto allocator = allocation::Allocator::Create(
      std::make_unique<allocation::MemoryStore>(),
      allocation::AllocatorOptions());
  EmptyServiceImpl empty;
  if (!allocator.ok()) _exit(1);
  std::vector<NamedService> services = (*allocator)->services();
  services.push_back({&empty, EmptyService::service_full_name()});
  auto server = Server::Start({}, services);
  if (!server.ok()) _exit(1);
  const std::string port = std::to_string((*server)->port()) + "\n";
  if (write(pipe, port.data(), port.size()) < 0) _exit(1);
  while (true) pause();
}

}  // namespace

BenchServer::BenchServer() {
  int ends[2];
  if (pipe(ends) != 0) return;
  pid_ = fork();
  if (pid_ == 0) Serve(ends[1]);
  close(ends[1]);
  char port[16] = {};
  const ssize_t size = read(ends[0], port, sizeof(port) - 1);
  close(ends[0]);
  if (size > 1) address_ = "127.0.0.1:" + std::string(port, size - 1);
}

BenchServer::~BenchServer() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

double BenchServer::CpuSeconds() const {
  std::ifstream stat("/proc/" + std::to_string(pid_) + "/stat");
  std::string text;
  std::getline(stat, text, ')');  // the name may hold spaces
  double user = 0, system = 0;
  for (int field = 3; field <= 15 && stat >> text; ++field) {
    if (field == 14) user = std::stod(text);
    if (field == 15) system = std::stod(text);
  }
  return (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

}  // namespace ratequant::bench
