// An allocator that has 10,000 models with 20 budgets each: what it takes, and
// how long until it serves them again.
#include <sys/types.h>

#include <csignal>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cpp/resource_names.h"
#include "ratequant/v1/allocation_service.pb.h"
#include "tests/bench/bench.h"
#include "tests/bench/rpc_load.h"
#include "tests/services/allocation/allocator_process.h"
#include "tests/services/allocation/calibration_generator.h"
#include "tests/services/allocation/temp_dir.h"

namespace ratequant::bench {
namespace {

constexpr int kBudgets = 20;
constexpr char kCreate[] = "/ratequant.v1.RegistryService/CreateCalibration";
constexpr char kGetBitMap[] = "/ratequant.v1.AllocationService/GetBitMap";
constexpr double kMebibyte = 1 << 20;

// A fine-tune's calibration, under one quantizer so that solving doesn't take
// most of the time.
grpc::ByteBuffer Calibration(uint32_t i) {
  testing::FleetModel model = testing::MakeFleetModel(i);
  model.spec.quantizers = {testing::DefaultQuantizer(v1::Quantizer::KIVI)};
  v1::CreateCalibrationRequest request;
  request.set_parent(client::ModelName(model.id));
  *request.mutable_calibration() = testing::MakeCalibration(model.spec);
  return ToBytes(request);
}

grpc::ByteBuffer Query(int i) {
  v1::GetBitMapRequest request;
  request.set_model(
      client::ModelName(testing::MakeFleetModel(i / kBudgets).id));
  request.mutable_budget()->set_effective_bits(3.2 + 0.25 * (i % kBudgets));
  return ToBytes(request);
}

// A line of /proc/<pid>/status, in bytes: "VmRSS" now, "VmHWM" at most.
double ResidentBytes(pid_t pid, const std::string& field) {
  std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
  std::string name, rest;
  double kibibytes = 0;
  while (status >> name) {
    if (name == field + ":" && status >> kibibytes) return kibibytes * 1024;
    std::getline(status, rest);
  }
  return 0;
}

int Main(int argc, char** argv) {
  const Options options = ParseOptions(argc, argv);
  const int models = options.quick ? 200 : 10'000;
  const testing::TempDir folder;
  const std::vector<std::string> arguments = {
      "--data-dir",  folder.File("data"), "--address",   "127.0.0.1:0",
      "--port-file", folder.File("port"), "--log-level", "warning"};
  const auto met = [&](bool kept) {
    return options.quick ? std::nullopt : std::optional<bool>(kept);
  };
  const std::string sizes =
      absl::StrFormat("%d models x %d budgets", models, kBudgets);
  {
    testing::AllocatorProcess process(arguments, folder.File("log"));
    const std::string address = process.WaitForAddress(folder.File("port"));
    RpcLoad client(address);
    const Load created = client.Run(kCreate, Calibration, models, 16);
    const Load solved = client.Run(kGetBitMap, Query, models * kBudgets, 16);
    const Load again = client.Run(kGetBitMap, Query, models * kBudgets, 16);
    if (created.failures + solved.failures + again.failures > 0) {
      std::cerr << created.failures << " creates, " << solved.failures
                << " first and " << again.failures << " second queries failed\n"
                << process.Log();
      return 1;
    }
    const double now = ResidentBytes(process.pid(), "VmRSS") / kMebibyte;
    Report({"allocator memory", now, "MiB resident", sizes, "<= 256 MiB",
            met(now <= 256),
            absl::StrFormat("%.0f MiB at most; %.0f creates/s, %.0f first and "
                            "%.0f later queries/s",
                            ResidentBytes(process.pid(), "VmHWM") / kMebibyte,
                            created.rate(), solved.rate(), again.rate())});
    process.Signal(SIGTERM);
    if (process.Wait() != 0) return 1;
  }
  // Through WaitForAddress, which looks every 10 ms: the port is written once
  // health checks answer SERVING.
  std::vector<double> seconds;
  double after = 0;
  for (int i = 0; i < 5; ++i) {
    std::string address;
    std::unique_ptr<testing::AllocatorProcess> process;
    seconds.push_back(Seconds([&] {
      process = std::make_unique<testing::AllocatorProcess>(arguments,
                                                            folder.File("log"));
      address = process->WaitForAddress(folder.File("port"));
    }));
    if (address.empty()) return 1;
    after = ResidentBytes(process->pid(), "VmRSS") / kMebibyte;
    process->Signal(SIGTERM);
    if (process->Wait() != 0) return 1;
  }
  const double median = Quantile(seconds, 0.5);
  Report({"allocator restart", median, "s to SERVING", sizes, "<= 2 s",
          met(median <= 2), absl::StrFormat("%.0f MiB resident then", after)});
  return 0;
}

}  // namespace
}  // namespace ratequant::bench

int main(int argc, char** argv) { return ratequant::bench::Main(argc, argv); }
