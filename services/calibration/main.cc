// ratequant-worker: serves ratequant.v1.CalibrationService.

#include <iostream>
#include <string>

#include "services/calibration/plan.h"
#include "services/calibration/words.h"
#include "services/calibration/worker.h"
#include "services/common/command_line.h"
#include "services/common/health_monitor.h"
#include "services/common/logging.h"
#include "services/common/shutdown_signal.h"
#include "services/common/status.h"
#include "spdlog/spdlog.h"

namespace {

constexpr char kProgram[] = "ratequant-worker";
constexpr char kFooter[] = R"(
Examples:
  ratequant-worker --model-root /models --allocator 127.0.0.1:50061 \
      --spool-dir /var/lib/ratequant/spool
  ratequant-worker --model-root . --no-publish --spool-dir spool \
      --address 127.0.0.1:0 --port-file port

Options may also stand in the environment, as RATEQUANT_WORKER_SPOOL_DIR for
--spool-dir, and in the TOML file of --config: a flag wins over the environment,
that over the file.

SIGTERM and SIGINT refuse new calibrations, let those that run finish for
--shutdown-grace and stop. What is measured by then is never lost.

Exit codes:
  0  stopped by a signal
  1  another failure
  2  a flag or setting is wrong, or a file that one names, the model root isn't a folder, or there is no such device
  3  the address can't be listened on, for example because it is in use
  4  the spool folder can't be used, for example by two workers)";

// Text of 64 MiB and what is around it.
constexpr int kMaxMessageBytes = 68 << 20;

struct Flags {
  ratequant::CommonFlags common;
  ratequant::calibration::WorkerOptions worker;
  std::string device = "cpu";
  std::string engine = "python3 -m ratequant.capture.engine";
  double engine_timeout = 120;
  double engine_stall_timeout = 1800;
  double drain_delay = 0;
  double shutdown_grace = 25;
  bool no_publish = false;
};

// Answers with --allocator.
CLI::Option* AddAllocatorFlags(
    CLI::App& app, ratequant::calibration::RegistryTarget& allocator) {
  CLI::Option* address = app.add_option("--allocator", allocator.address,
                                        "Where calibrations are published")
                             ->type_name("HOST:PORT");
  app.add_flag("--allocator-tls", allocator.encrypted,
               "Publish over TLS; the system's CA certificates are good");
  app.add_option("--allocator-ca", allocator.tls.ca,
                 "Publish over TLS; only these CA certificates, PEM, are good")
      ->type_name("FILE");
  CLI::Option* certificate =
      app.add_option("--allocator-cert", allocator.tls.certificate,
                     "Publish over TLS with this certificate chain, PEM")
          ->type_name("FILE");
  CLI::Option* key = app.add_option("--allocator-key", allocator.tls.key,
                                    "Key of that certificate, PEM")
                         ->type_name("FILE")
                         ->needs(certificate);
  certificate->needs(key);
  app.add_option("--allocator-token-file", allocator.token_file,
                 "Publish with the bearer token in this file")
      ->type_name("FILE");
  return address;
}

void AddFlags(CLI::App& app, Flags& flags) {
  flags.common.server.address = "127.0.0.1:50062";
  flags.common.server.max_message_bytes = kMaxMessageBytes;
  AddCommonFlags(app, &flags.common);
  app.add_option("--model-root", flags.worker.model_root,
                 "Folder that models may be read from")
      ->type_name("DIR")
      ->required();
  CLI::Option* allocator = AddAllocatorFlags(app, flags.worker.allocator);
  app.add_flag("--no-publish", flags.no_publish,
               "Keep calibrations in the spool")
      ->excludes(allocator);
  app.add_option("--spool-dir", flags.worker.spool_dir,
                 "Folder for calibrations that wait for the allocator")
      ->type_name("DIR")
      ->required();
  app.add_option("--engine", flags.engine,
                 "Command that starts the capture engine; quotes as in a shell")
      ->capture_default_str();
  app.add_option("--engine-timeout", flags.engine_timeout,
                 "Longest silence of an engine or stream before it is given up")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.1, 86400.0))
      ->capture_default_str();
  app.add_option("--engine-stall-timeout", flags.engine_stall_timeout,
                 "Longest time an engine may send nothing but heartbeats")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.1, 86400.0))
      ->capture_default_str();
  app.add_option("--max-concurrent", flags.worker.queue.max_concurrent,
                 "Calibrations that run at the same time")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--max-waiting", flags.worker.queue.max_waiting,
                 "Calibrations that may wait for their turn")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  app.add_option(
         "--memory-limit", flags.worker.memory_limit,
         "Bytes that captured layers and tables of all calibrations may "
         "take, each an equal share; KiB, MiB and GiB are understood")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->check(CLI::PositiveNumber)
      ->type_name("SIZE")
      ->capture_default_str();
  ratequant::AddShutdownFlags(app, &flags.drain_delay, &flags.shutdown_grace,
                              "calibrations");
  app.add_option("--device", flags.device,
                 "What the distortion sweep runs on: cpu, cuda or cuda:N")
      ->capture_default_str();
  app.add_option("--threads", flags.worker.threads,
                 "Threads of the distortion sweep on the CPU; 0: one per core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
}

// What CLI11 can't check. Prints and answers false when something is wrong.
bool Complete(Flags& flags) {
  ratequant::FinishCommonFlags(&flags.common);
  ratequant::calibration::RegistryTarget& allocator = flags.worker.allocator;
  if (allocator.address.empty() && !flags.no_publish) {
    std::cerr << kProgram << ": --allocator or --no-publish is required\n";
    return false;
  }
  auto words = ratequant::calibration::SplitWords(flags.engine);
  if (!words.ok() || words->empty()) {
    std::cerr << kProgram << ": --engine: "
              << (words.ok() ? "is empty" : words.status().message()) << "\n";
    return false;
  }
  auto device = ratequant::calibration::ParseDevice(flags.device);
  if (!device.ok()) {
    std::cerr << kProgram << ": --device: " << device.status().message()
              << "\n";
    return false;
  }
  flags.worker.device = *device;
  flags.worker.engine.command = *std::move(words);
  flags.worker.engine.timeout = absl::Seconds(flags.engine_timeout);
  flags.worker.engine.stall_timeout = absl::Seconds(flags.engine_stall_timeout);
  allocator.encrypted |= !allocator.tls.empty();
  allocator.insecure = flags.common.server.insecure;
  allocator.tls.reload_interval = flags.common.server.tls.reload_interval;
  flags.worker.server = flags.common.server;
  return true;
}

int ReportFailure(const absl::Status& status) {
  const std::string reason = ratequant::ErrorReason(status);
  const bool spool = reason == "SPOOL_UNUSABLE" || reason == "SPOOL_IN_USE";
  const int code = ratequant::ReportStartFailure(kProgram, status);
  if (reason == "MODEL_ROOT_UNUSABLE" || reason == "DEVICE_UNAVAILABLE") {
    return ratequant::kExitUsage;
  }
  return spool ? ratequant::kExitDataFolder : code;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Calibrates models: measures the distortion of their KV cache",
               kProgram);
  Flags flags;
  app.footer(kFooter);
  AddFlags(app, flags);
  if (auto code = ratequant::ParseCommandLine(app, argc, argv)) return *code;
  if (!Complete(flags)) return ratequant::kExitUsage;
  if (!ratequant::InitLogging(kProgram, flags.common.log_level,
                              flags.common.log_format)
           .ok()) {
    return ratequant::kExitUsage;
  }
  ratequant::ShutdownSignal signal;
  auto gate = ratequant::CallGate::Open(flags.common.gate);
  if (!gate.ok()) return ReportFailure(gate.status());
  flags.worker.gate = gate->get();
  const auto admin = ratequant::StartAdmin(app, &flags.common);
  if (!admin.ok()) return ReportFailure(admin.status());
  auto worker = ratequant::calibration::Worker::Start(flags.worker);
  if (!worker.ok()) return ReportFailure(worker.status());
  const ratequant::HealthMonitor monitor((*worker)->server(),
                                         (*worker)->dependencies());
  const ratequant::ReadyScope ready(admin->get(),
                                    [&monitor] { return monitor.Ready(); });
  spdlog::info("serving on {}", (*worker)->address());
  signal.Wait();
  spdlog::info("shutting down");
  (*worker)->Drain(absl::Seconds(flags.drain_delay));
  (*worker)->Shutdown(absl::Seconds(flags.shutdown_grace));
  return ratequant::kExitOk;
}
