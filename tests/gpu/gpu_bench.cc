// Encode and decode against the bytes they must move at the device's measured
// copy bandwidth: every row and every section, each once.

#include <cuda_runtime.h>

#include <cstdio>
#include <string>
#include <vector>

#include "kernels/cuda/decode.h"
#include "kernels/cuda/encode.h"
#include "tests/gpu/bench_util.h"
#include "tests/gpu/paged_bench.h"
#include "tests/gpu/sweep_bench.h"

namespace ratequant::kv::cuda {
namespace {

constexpr int kHeadDim = 128;
constexpr int kPageTokens = 32;
constexpr int kTasks = 1 << 16;  // 512 MiB of fp16, far beyond any cache
constexpr size_t kRowsBytes = size_t{2} * kPageTokens * kHeadDim;  // of a task

class Bench {
 public:
  Bench() {
    const std::vector<uint16_t> rows = MakeHalves(kTasks * kRowsBytes / 2);
    Require(rows_.Allocate(rows.size()));
    Require(rows_.CopyFrom(rows.data(), nullptr));
    Require(decoded_.Allocate(rows.size()));
    // Width 16 has the largest sections but for 8 bits with kivi's parameters.
    Require(sections_.Allocate(kTasks * (kRowsBytes + 1024)));
    Require(fault_.Allocate(1));
    const FaultWord none = kNoFault;
    Require(fault_.CopyFrom(&none, nullptr));
    copy_ = CopyBandwidth(rows_.data(), decoded_.data(), kTasks * kRowsBytes);
  }

  void PrintHeader() const {
    std::printf(
        "copy bandwidth %.0f GB/s (read and written), %d pages of %d "
        "tokens, head_dim %d, fp16, median of %d\n",
        copy_ * 1e-6, kTasks, kPageTokens, kHeadDim, kRuns);
    std::printf("%-28s %12s %12s %12s %12s\n", "format", "encode ms", "of copy",
                "decode ms", "of copy");
  }

  // One row of the table: the formats take turns over the tasks.
  void Run(const std::string& name, const std::vector<FormatSpec>& specs) {
    FormatTable formats;
    Require(
        FormatTable::Create(kHeadDim, kPageTokens, specs, nullptr, &formats));
    std::vector<EncodeTask> encode;
    std::vector<DecodeTask> decode;
    size_t offset = 0;
    for (int i = 0; i < kTasks; ++i) {
      const int format = i % formats.size();
      const size_t row = i * kRowsBytes / 2;
      encode.push_back({sections_.data() + offset, rows_.data() + row, format,
                        0, kPageTokens, 0});
      decode.push_back({sections_.data() + offset, decoded_.data() + row,
                        format, 0, kPageTokens});
      offset += formats.layout(format).section_bytes;
    }
    const double bytes = static_cast<double>(offset + kTasks * kRowsBytes);
    const double encode_ms = Time(LaunchEncode, formats, encode);
    const double decode_ms = Time(LaunchDecode, formats, decode);
    std::printf("%-28s %12.3f %11.0f%% %12.3f %11.0f%%\n", name.c_str(),
                encode_ms, 100 * bytes / encode_ms / copy_, decode_ms,
                100 * bytes / decode_ms / copy_);
  }

 private:
  template <class Params, class Task>
  double Time(Status (*start)(const Params&, cudaStream_t),
              const FormatTable& formats, const std::vector<Task>& tasks) {
    DeviceBuffer<Task> device;
    Require(device.Allocate(tasks.size()));
    Require(device.CopyFrom(tasks.data(), nullptr));
    Params launch;
    launch.formats = &formats;
    launch.tasks = device.data();
    launch.num_tasks = kTasks;
    launch.max_count = kPageTokens;
    launch.dtype = DType::kFloat16;
    launch.row_stride = kHeadDim;
    launch.fault = fault_.data();
    const double ms = MedianMs([&] { Require(start(launch, nullptr)); });
    FaultWord fault = kNoFault;
    Require(fault_.CopyTo(&fault, nullptr));
    Require(cudaDeviceSynchronize());
    Require(StatusOfFault(fault));
    return ms;
  }

  DeviceBuffer<uint16_t> rows_;
  DeviceBuffer<uint16_t> decoded_;
  DeviceBuffer<uint8_t> sections_;
  DeviceBuffer<FaultWord> fault_;
  double copy_ = 0;  // bytes a millisecond
};

FormatSpec Spec(QuantizerKind kind, Tensor tensor, int width) {
  FormatSpec spec;
  spec.quantizer.kind = kind;
  spec.tensor = tensor;
  spec.width = width;
  return spec;
}

void BenchSections() {
  struct Family {
    const char* name;
    QuantizerKind kind;
    Tensor tensor;
  };
  const Family families[] = {
      {"rtn", QuantizerKind::kRtn, Tensor::kKey},
      {"kivi K", QuantizerKind::kKivi, Tensor::kKey},
      {"kivi V", QuantizerKind::kKivi, Tensor::kValue},
      {"quarot", QuantizerKind::kQuarot, Tensor::kKey},
      {"turboquant", QuantizerKind::kTurboquant, Tensor::kValue},
      {"tcq", QuantizerKind::kTcq, Tensor::kValue}};
  Bench bench;
  bench.PrintHeader();
  std::vector<FormatSpec> mixed;
  for (const Family& family : families) {
    for (const int width : {2, 3, 4, 8}) {
      const FormatSpec spec = Spec(family.kind, family.tensor, width);
      bench.Run(std::string(family.name) + " " + std::to_string(width), {spec});
      mixed.push_back(spec);
    }
  }
  bench.Run("fp16", {Spec(QuantizerKind::kRtn, Tensor::kKey, 16)});
  bench.Run("all of the above, mixed", mixed);
}

}  // namespace
}  // namespace ratequant::kv::cuda

int main() {
  const auto device = ratequant::kv::cuda::CheckDevice();
  if (!device.ok()) {
    std::fprintf(stderr, "gpu_bench: %s\n", device.message().c_str());
    return 77;
  }
  ratequant::kv::cuda::BenchSections();
  ratequant::kv::cuda::BenchPaged();
  ratequant::kv::cuda::BenchSweep();
  return 0;
}
