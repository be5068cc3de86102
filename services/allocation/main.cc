// ratequant-allocator: stores calibrations and answers budget queries; looks
// into a data folder, and restores one from a backup.
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "services/allocation/allocator.h"
#include "services/allocation/inspect.h"
#include "services/allocation/store/rocksdb_store.h"
#include "services/common/command_line.h"
#include "services/common/health_monitor.h"
#include "services/common/logging.h"
#include "services/common/server.h"
#include "services/common/shutdown_signal.h"
#include "services/common/status.h"
#include "spdlog/spdlog.h"

namespace {

using ratequant::allocation::Allocator;
using ratequant::allocation::AllocatorOptions;
using ratequant::allocation::RocksDbStore;

constexpr char kProgram[] = "ratequant-allocator";
constexpr char kFooter[] = R"(
Examples:
  ratequant-allocator --data-dir /var/lib/ratequant
  ratequant-allocator --data-dir data --address 127.0.0.1:0 --port-file port
  ratequant-allocator inspect --data-dir /var/lib/ratequant
  ratequant-allocator restore --backup backups/monday --data-dir restored

Options may also stand in the environment, as RATEQUANT_ALLOCATOR_DATA_DIR for
--data-dir, and in the TOML file of --config: a flag wins over the environment,
that over the file.

SIGTERM and SIGINT stop it once running calls have finished, after
--shutdown-grace at most.

Exit codes:
  0  stopped by a signal
  1  another failure; inspect: something is damaged
  2  a flag or setting is wrong, or a file that one names
  3  the address can't be listened on, for example because it is in use
  4  the data folder can't be used: in use by another process, damaged, not
     writable, or written by a newer version)";

struct Flags {
  ratequant::CommonFlags common;
  std::string data_dir;
  std::string backup;
  AllocatorOptions allocator;
  uint64_t memory_mib = 32;
  uint64_t store_mib = 1024;
  double watch_patience = 30;
  double max_wait = 60;
  double drain_delay = 0;
  double shutdown_grace = 10;
};

int ReportDataFolder(const absl::Status& status) {
  std::cerr << kProgram << ": " << status.message() << "\n";
  return ratequant::kExitDataFolder;
}

std::chrono::milliseconds Milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

AllocatorOptions OptionsOf(const Flags& flags, ratequant::CallGate* gate) {
  AllocatorOptions options = flags.allocator;
  options.gate = gate;
  // A core is left to answers from the cache; with two threads a backup doesn't
  // hold up all the rest.
  options.threads =
      std::clamp<int>(std::thread::hardware_concurrency() - 1, 2, 16);
  options.memory_bytes = flags.memory_mib << 20;
  options.store_bytes = flags.store_mib << 20;
  options.watch_patience = Milliseconds(flags.watch_patience);
  options.max_wait = absl::Seconds(flags.max_wait);
  return options;
}

int Run(const CLI::App& app, Flags& flags) {
  // One heap for each of many threads keeps several times what is in use.
  mallopt(M_ARENA_MAX, 2);
  ratequant::ShutdownSignal signal;
  auto gate = ratequant::CallGate::Open(flags.common.gate);
  if (!gate.ok()) {
    return ratequant::ReportStartFailure(kProgram, gate.status());
  }
  const auto admin = ratequant::StartAdmin(app, &flags.common);
  if (!admin.ok()) {
    return ratequant::ReportStartFailure(kProgram, admin.status());
  }
  auto store = RocksDbStore::Open(flags.data_dir);
  if (!store.ok()) return ReportDataFolder(store.status());
  auto allocator =
      Allocator::Create(*std::move(store), OptionsOf(flags, gate->get()));
  if (!allocator.ok()) {
    return ReportDataFolder(ratequant::Annotate(
        allocator.status(), "data folder " + flags.data_dir));
  }
  auto server =
      ratequant::Server::Start(flags.common.server, (*allocator)->services());
  if (!server.ok()) {
    return ratequant::ReportStartFailure(kProgram, server.status());
  }
  const ratequant::HealthMonitor monitor(server->get(),
                                         (*allocator)->dependencies());
  const ratequant::ReadyScope ready(admin->get(),
                                    [&monitor] { return monitor.Ready(); });
  spdlog::info("serving on {}, data in {}", (*server)->address(),
               flags.data_dir);
  spdlog::info("{}, stopping", signal.Wait() == SIGINT ? "SIGINT" : "SIGTERM");
  (*server)->Drain(Milliseconds(flags.drain_delay));
  (*allocator)->StopWatches();
  (*server)->Shutdown(Milliseconds(flags.shutdown_grace));
  spdlog::info("stopped");
  return ratequant::kExitOk;
}

int RunInspect(const Flags& flags) {
  const auto store = RocksDbStore::OpenReadOnly(flags.data_dir);
  if (!store.ok()) return ReportDataFolder(store.status());
  absl::Status sound = (*store)->Verify();
  if (!sound.ok()) {
    std::cerr << kProgram << ": " << sound.message() << "\n";
    return ratequant::kExitFailure;
  }
  const auto found = ratequant::allocation::Inspect(**store);
  if (!found.ok()) return ReportDataFolder(found.status());
  std::cout << found->text;
  for (const std::string& row : found->damaged) {
    std::cout << "damaged: " << row << "\n";
  }
  return found->damaged.empty() ? ratequant::kExitOk : ratequant::kExitFailure;
}

int RunRestore(const Flags& flags) {
  const absl::Status restored =
      RocksDbStore::Restore(flags.backup, flags.data_dir);
  if (!restored.ok()) return ReportDataFolder(restored);
  std::cout << "restored " << flags.backup << " to " << flags.data_dir << "\n";
  return ratequant::kExitOk;
}

void AddServingFlags(CLI::App& app, Flags* flags) {
  ratequant::AddCommonFlags(app, &flags->common);
  app.add_option("--backup-dir", flags->allocator.backup_dir,
                 "Folder that `ratequant admin backup` makes backups in; "
                 "without it there are none")
      ->type_name("DIR");
  app.add_option("--memory-mib", flags->memory_mib,
                 "Most memory for answers that are kept ready")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("MIB")
      ->capture_default_str();
  app.add_option("--store-mib", flags->store_mib,
                 "Most disk for bit maps that can be solved again; those with "
                 "evaluations come on top")
      ->check(CLI::Range(1, 1 << 24))
      ->type_name("MIB")
      ->capture_default_str();
  app.add_option("--watch-patience", flags->watch_patience,
                 "End a watcher that takes no message for so long")
      ->check(CLI::Range(0.01, 86400.0))
      ->type_name("SECONDS")
      ->capture_default_str();
  app.add_option("--max-watchers", flags->allocator.max_watchers,
                 "Bit maps that may be watched at once")
      ->check(CLI::Range(0, 1 << 24))
      ->type_name("CALLS")
      ->capture_default_str();
  app.add_option("--max-waiting", flags->allocator.max_waiting,
                 "Calls that may wait for a thread; what comes then is refused")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("CALLS")
      ->capture_default_str();
  app.add_option("--max-wait", flags->max_wait,
                 "Longest time a call may wait for a thread, whatever its "
                 "deadline")
      ->check(CLI::Range(0.01, 86400.0))
      ->type_name("SECONDS")
      ->capture_default_str();
  ratequant::AddShutdownFlags(app, &flags->drain_delay, &flags->shutdown_grace,
                              "calls");
}

void AddDataDir(CLI::App& app, Flags* flags, const char* description) {
  app.add_option("--data-dir", flags->data_dir, description)->type_name("DIR");
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  flags.common.server.address = "127.0.0.1:50061";
  CLI::App app(
      "Stores KV-cache calibrations and answers budget queries with bit maps "
      "(gRPC: ratequant.v1.RegistryService, AllocationService and "
      "AdminService).",
      kProgram);
  app.footer(kFooter);
  AddServingFlags(app, &flags);
  AddDataDir(app, &flags,
             "Folder for the database; made when it doesn't exist");
  CLI::App* inspect = app.add_subcommand(
      "inspect",
      "Looks at a data folder or a backup without changing it, also while an "
      "allocator serves it: checks every checksum and every row, and says what "
      "is there");
  AddDataDir(*inspect, &flags, "The folder (required)");
  CLI::App* restore = app.add_subcommand(
      "restore", "Makes a new data folder from a backup, once it is sound");
  restore
      ->add_option("--backup", flags.backup, "The backup's folder (required)")
      ->type_name("DIR");
  AddDataDir(*restore, &flags,
             "The new folder; empty, or not there yet (required)");
  app.require_subcommand(0, 1);
  app.callback([&flags, restore] {
    if (flags.data_dir.empty()) throw CLI::RequiredError("--data-dir");
    if (restore->parsed() && flags.backup.empty()) {
      throw CLI::RequiredError("--backup");
    }
  });
  if (const auto code = ratequant::ParseCommandLine(app, argc, argv)) {
    return *code;
  }
  ratequant::FinishCommonFlags(&flags.common);
  const absl::Status logging = ratequant::InitLogging(
      kProgram, flags.common.log_level, flags.common.log_format);
  if (!logging.ok()) {
    std::cerr << kProgram << ": " << logging.message() << "\n";
    return ratequant::kExitUsage;
  }
  if (inspect->parsed()) return RunInspect(flags);
  if (restore->parsed()) return RunRestore(flags);
  return Run(app, flags);
}
