// ratequant-allocator: stores calibrations and answers budget queries.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "services/allocation/allocator.h"
#include "services/allocation/store/rocksdb_store.h"
#include "services/common/command_line.h"
#include "services/common/logging.h"
#include "services/common/server.h"
#include "services/common/shutdown_signal.h"
#include "spdlog/spdlog.h"

namespace {

using ratequant::allocation::Allocator;
using ratequant::allocation::RocksDbStore;

constexpr char kProgram[] = "ratequant-allocator";
constexpr std::chrono::seconds kDrainTime(10);

constexpr char kFooter[] = R"(
Examples:
  ratequant-allocator --data-dir /var/lib/ratequant
  ratequant-allocator --data-dir data --address 127.0.0.1:0 --port-file port

SIGTERM and SIGINT stop it once running calls have finished (10 s at most).

Exit codes:
  0  stopped by a signal
  1  another failure
  2  a flag is wrong
  3  the address can't be listened on, for example because it is in use
  4  the data folder can't be used: in use by another process, damaged, not
     writable, or written by a newer version)";

struct Flags {
  ratequant::CommonFlags common;
  std::string data_dir;
};

int Run(const Flags& flags) {
  ratequant::ShutdownSignal signal;
  auto store = RocksDbStore::Open(flags.data_dir);
  if (!store.ok()) {
    std::cerr << kProgram << ": " << store.status().message() << "\n";
    return ratequant::kExitDataFolder;
  }
  const int threads =
      std::clamp<int>(std::thread::hardware_concurrency(), 2, 16);
  auto allocator = Allocator::Create(*std::move(store), threads);
  if (!allocator.ok()) {
    std::cerr << kProgram << ": data folder " << flags.data_dir << ": "
              << allocator.status().message() << "\n";
    return ratequant::kExitDataFolder;
  }
  auto server =
      ratequant::Server::Start(flags.common.server, (*allocator)->services());
  if (!server.ok()) {
    return ratequant::ReportStartFailure(kProgram, server.status());
  }
  spdlog::info("serving on {}, data in {}", (*server)->address(),
               flags.data_dir);
  spdlog::info("{}, stopping", signal.Wait() == SIGINT ? "SIGINT" : "SIGTERM");
  (*server)->Shutdown(kDrainTime);
  spdlog::info("stopped");
  return ratequant::kExitOk;
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  flags.common.server.address = "127.0.0.1:50061";
  CLI::App app(
      "Stores KV-cache calibrations and answers budget queries with bit maps "
      "(gRPC: ratequant.v1.RegistryService, ratequant.v1.AllocationService).",
      kProgram);
  app.footer(kFooter);
  ratequant::AddCommonFlags(app, &flags.common);
  app.add_option("--data-dir", flags.data_dir,
                 "Folder for the database; made when it doesn't exist")
      ->type_name("DIR")
      ->required();
  if (const auto code = ratequant::ParseCommandLine(app, argc, argv)) {
    return *code;
  }
  const absl::Status logging =
      ratequant::InitLogging(kProgram, flags.common.log_level);
  if (!logging.ok()) {
    std::cerr << kProgram << ": " << logging.message() << "\n";
    return ratequant::kExitUsage;
  }
  return Run(flags);
}
