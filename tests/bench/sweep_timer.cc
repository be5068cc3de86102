// Times the CPU distortion sweep over one layer's tensors, for sweep_bench.py.
//
//   sweep_timer FILE HEADS TOKENS DIM THREADS RUNS
//
// FILE holds float32: K, its gradient, V, its gradient, each
// [HEADS, TOKENS, DIM]. Prints one line of JSON: the median seconds of RUNS
// sweeps, after one that doesn't count, the tables for all default quantizers
// at 1 to 8 bits, and turboquant's codebooks.

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "kernels/quantizers/codebook.h"
#include "nlohmann/json.hpp"
#include "ratequant/kv/bit_width.h"
#include "ratequant/kv/distortion.h"
#include "ratequant/kv/quantizer.h"
#include "tests/bench/bench.h"

namespace ratequant::kv {
namespace {

void Require(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << "sweep_timer: " << status << "\n";
  std::exit(1);
}

std::vector<float> ReadFloats(const char* path, size_t count) {
  std::vector<float> values(count);
  std::ifstream file(path, std::ios::binary);
  if (!file.read(reinterpret_cast<char*>(values.data()),
                 static_cast<std::streamsize>(count * sizeof(float)))) {
    Require(absl::InvalidArgumentError(std::string(path) + " is too short"));
  }
  return values;
}

int Main(int argc, char** argv) {
  if (argc != 7) {
    std::cerr << "sweep_timer FILE HEADS TOKENS DIM THREADS RUNS\n";
    return 2;
  }
  DistortionSweep::Options options;
  options.layers = 1;
  options.kv_heads = std::atoi(argv[2]);
  const int tokens = std::atoi(argv[3]);
  options.head_dim = std::atoi(argv[4]);
  options.threads = std::atoi(argv[5]);
  options.quantizers = DefaultQuantizers();
  // Its search has no vectorised form in PyTorch to be compared with.
  std::erase_if(options.quantizers, [](const QuantizerSpec& spec) {
    return spec.kind == QuantizerKind::kTcq;
  });
  const size_t count =
      static_cast<size_t>(options.kv_heads) * tokens * options.head_dim;
  const std::vector<float> data = ReadFloats(argv[1], 4 * count);

  DistortionTables tables;
  const double seconds = bench::MedianSeconds(std::atoi(argv[6]), [&] {
    auto sweep = DistortionSweep::Create(options);
    Require(sweep.status());
    for (const Tensor tensor : {Tensor::kKey, Tensor::kValue}) {
      const float* const values = &data[tensor == Tensor::kKey ? 0 : 2 * count];
      Require((*sweep)->Add(0, tensor, tokens, values, values + count,
                            DType::kFloat32));
    }
    auto finished = (*sweep)->Finish();
    Require(finished.status());
    tables = *std::move(finished);
  });

  nlohmann::json out = {{"seconds", seconds}};
  for (const DistortionTable& table : tables.tables) {
    out[QuantizerName(table.quantizer)] = {
        {"mse", table.mse}, {"c1", table.c1}, {"c2", table.c2}};
  }
  for (int width = kMinCodeWidth; width <= kMaxCodeWidth; ++width) {
    const Codebook& codebook = GetCodebook(options.head_dim, width);
    out["codebooks"][std::to_string(width)] = {
        {"thresholds", codebook.thresholds},
        {"units", std::vector<float>(codebook.units.begin(),
                                     codebook.units.begin() + (1 << width))}};
  }
  std::cout << out << "\n";
  return 0;
}

}  // namespace
}  // namespace ratequant::kv

int main(int argc, char** argv) { return ratequant::kv::Main(argc, argv); }
