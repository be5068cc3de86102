// GetBitMap: from the cache against an RPC that does nothing, and for the first
// time; and the whole curve.
#include <atomic>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "clients/cpp/client.h"
#include "clients/cpp/resource_names.h"
#include "empty.pb.h"
#include "google/protobuf/wrappers.pb.h"
#include "services/allocation/curve.h"
#include "tests/bench/bench.h"
#include "tests/bench/bench_server.h"
#include "tests/bench/rpc_load.h"
#include "tests/services/allocation/allocator_process.h"
#include "tests/services/allocation/calibration_generator.h"
#include "tests/services/allocation/temp_dir.h"

namespace ratequant::bench {
namespace {

constexpr char kModel[] = "Qwen3-8B";  // 36 layers of 8 KV heads: 576 groups
constexpr char kGetBitMap[] = "/ratequant.v1.AllocationService/GetBitMap";
constexpr char kEmpty[] = "/ratequant.bench.EmptyService/Get";
constexpr int kInFlight = 16;

bool Calibrate(const std::string& address) {
  for (const testing::KnownModel& model : testing::KnownModels()) {
    if (model.id != std::string(kModel)) continue;
    client::Client client(
        client::ConnectionOptions{.allocator_endpoint = address});
    const auto stored = client.CreateCalibration(
        kModel, testing::MakeCalibration(testing::SpecOf(model, 1)));
    if (stored.ok()) return true;
    std::cerr << stored.status() << "\n";
  }
  return false;
}

grpc::ByteBuffer Query(double effective_bits) {
  v1::GetBitMapRequest request;
  request.set_model(client::ModelName(kModel));
  request.mutable_budget()->set_effective_bits(effective_bits);
  return ToBytes(request);
}

double Milliseconds(double seconds) { return seconds * 1e3; }

// Both RPCs in turn, so that whatever else the machine does meets both.
int CachedAgainstEmpty(const Options& options, const BenchServer& server) {
  PinThread(1);
  RpcLoad client(server.address());
  const grpc::ByteBuffer query = Query(3);
  const size_t bytes = client
                           .Run(
                               kGetBitMap, [&](int) { return query; }, 1, 1)
                           .answer_bytes;
  google::protobuf::UInt32Value size;
  size.set_value(static_cast<uint32_t>(bytes - 3));  // tag and length of bytes
  const grpc::ByteBuffer nothing = ToBytes(size);
  const int calls = options.quick ? 4000 : 20000;
  const int rounds = options.quick ? 5 : 9;
  std::vector<double> rate, p99, cpu, rates;
  for (int round = -1; round < rounds; ++round) {
    double cpu_before = server.CpuSeconds();
    const Load empty = client.Run(
        kEmpty, [&](int) { return nothing; }, calls, kInFlight);
    const double empty_cpu = server.CpuSeconds() - cpu_before;
    cpu_before += empty_cpu;
    const Load cached = client.Run(
        kGetBitMap, [&](int) { return query; }, calls, kInFlight);
    const double cached_cpu = server.CpuSeconds() - cpu_before;
    if (empty.failures + cached.failures > 0 ||
        empty.answer_bytes != cached.answer_bytes) {
      std::cerr << "calls failed, or answers of " << empty.answer_bytes
                << " against " << cached.answer_bytes << " bytes\n";
      return 1;
    }
    if (round < 0) continue;  // warm-up
    rate.push_back(cached.rate() / empty.rate());
    p99.push_back(Quantile(cached.latencies, 0.99) /
                  Quantile(empty.latencies, 0.99));
    cpu.push_back(cached_cpu / empty_cpu);
    rates.push_back(cached.rate());
  }
  const std::string note = absl::StrFormat(
      "%d bytes, %d in flight, server on one CPU: %.0f/s, its CPU time a call "
      "%.2fx",
      bytes, kInFlight, Quantile(rates, 0.5), Quantile(cpu, 0.5));
  const double ratio = Quantile(rate, 0.5), tail = Quantile(p99, 0.5);
  Report({"cached GetBitMap", ratio, "x throughput",
          "empty RPC with as large an answer", ">= 0.8x", ratio >= 0.8, note});
  Report({"cached GetBitMap", tail, "x p99",
          "empty RPC with as large an answer", "<= 1.5x", tail <= 1.5, ""});
  return 0;
}

// Budgets nobody asked for before, one after the other, while another client
// reads one from the cache.
int FirstOfABudget(const Options& options) {
  const testing::TempDir folder;
  testing::AllocatorProcess process(
      {"--data-dir", folder.File("data"), "--address", "127.0.0.1:0",
       "--port-file", folder.File("port"), "--log-level", "warning"},
      folder.File("log"));
  const std::string address = process.WaitForAddress(folder.File("port"));
  if (address.empty() || !Calibrate(address)) {
    std::cerr << process.Log();
    return 1;
  }
  RpcLoad client(address), reader(address);
  const int misses = options.quick ? 40 : 200;  // a round
  const grpc::ByteBuffer cached = Query(3);
  const auto read = [&](int calls) {
    return reader.Run(
        kGetBitMap, [&](int) { return cached; }, calls, 1);
  };
  read(500);  // warm-up
  constexpr int kRounds = 5;
  std::vector<double> first, alone, beside;
  const auto add = [](const Load& load, std::vector<double>* to) {
    to->insert(to->end(), load.latencies.begin(), load.latencies.end());
  };
  for (int round = 0; round < kRounds; ++round) {
    add(read(misses), &alone);
    std::atomic<bool> done = false;
    std::thread missing([&] {
      const auto query = [&](int i) {
        const int of = misses * kRounds;
        return Query(2 + 5.0 * (round * misses + i + 1) / of);
      };
      add(client.Run(kGetBitMap, query, misses, 1), &first);
      done = true;
    });
    while (!done) add(read(50), &beside);
    missing.join();
  }
  if (first.size() < static_cast<size_t>(misses) * kRounds) return 1;
  const double median = Quantile(first, 0.5);
  const double later = Quantile(beside, 0.99) - Quantile(alone, 0.99);
  Report({"first GetBitMap of a budget", Milliseconds(median), "ms",
          "576 groups, solved and stored", "<= 5 ms", median <= 5e-3,
          absl::StrFormat("p99 %.2f ms", Milliseconds(Quantile(first, 0.99)))});
  Report({"first GetBitMap of a budget", Milliseconds(later), "ms more p99",
          "a cached reader without it", "less than a miss takes",
          later < median,
          absl::StrFormat("reader: p99 %.2f ms without, %.2f ms beside it; "
                          "median %.2f and %.2f ms",
                          Milliseconds(Quantile(alone, 0.99)),
                          Milliseconds(Quantile(beside, 0.99)),
                          Milliseconds(Quantile(alone, 0.5)),
                          Milliseconds(Quantile(beside, 0.5)))});
  return 0;
}

int WholeCurve(const Options& options) {
  v1::Calibration calibration = testing::MakeCalibration(
      {.layers = 72, .kv_heads = 8, .head_dim = 128});  // 1,152 groups
  const v1::GetRateDistortionCurveRequest request;
  const auto query = allocation::MakeQuery(request, calibration);
  if (!query.ok()) return 1;
  size_t points = 0, bytes = 0;
  const double seconds = MedianSeconds(options.quick ? 5 : 15, [&] {
    const auto curve = allocation::PlanCurve(calibration, *query, request);
    points = curve->points_size();
    bytes = curve->ByteSizeLong();
  });
  Report({"rate-distortion curve", Milliseconds(seconds), "ms",
          "1,152 groups x 4 quantizers", "every breakpoint in one answer",
          std::nullopt,
          absl::StrFormat("%d breakpoints, %.2f MiB", points,
                          static_cast<double>(bytes) / (1 << 20))});
  return 0;
}

int Main(int argc, char** argv) {
  const Options options = ParseOptions(argc, argv);
  const BenchServer server;  // before any thread of gRPC
  if (server.address().empty() || !Calibrate(server.address())) {
    std::cerr << "the server didn't start\n";
    return 1;
  }
  // The processes of FirstOfABudget use all CPUs: it comes before pinning.
  int failed = FirstOfABudget(options);
  failed |= WholeCurve(options);
  failed |= CachedAgainstEmpty(options, server);
  return failed;
}

}  // namespace
}  // namespace ratequant::bench

int main(int argc, char** argv) { return ratequant::bench::Main(argc, argv); }
