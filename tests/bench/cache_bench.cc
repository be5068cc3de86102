// The cache on the CPU: storing and reading back tokens, against copying the
// same fp32 values with the same threads.
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "ratequant/kv/kv_cache.h"
#include "tests/bench/bench.h"

namespace ratequant::bench {
namespace {

using namespace ::ratequant::kv;

constexpr int kHeads = 8, kDim = 128;
constexpr int kRuns = 7;

// K and V of all heads: [2, kHeads, tokens, kDim].
struct Tokens {
  explicit Tokens(int64_t count)
      : count(count), data(2 * kHeads * count * kDim) {}

  template <typename Heads>
  Heads heads(int which) {
    return {data.data() + which * kHeads * count * kDim, DType::kFloat32,
            count * kDim, kDim};
  }
  int64_t bytes() const { return static_cast<int64_t>(data.size()) * 4; }

  int64_t count;
  std::vector<float> data;
};

// Copies with as many threads as the cache gets, each its share.
void Copy(const Tokens& from, Tokens& to, LoopRunner& loops) {
  const int64_t share = static_cast<int64_t>(from.data.size()) / (2 * kHeads);
  loops.Run(2 * kHeads, [&](int i) {
    std::memcpy(to.data.data() + i * share, from.data.data() + i * share,
                share * sizeof(float));
  });
}

std::unique_ptr<KvCache> Make(const char* quantizer, int width) {
  KvCacheConfig config;
  config.geometry = {1, kHeads, kDim};
  config.groups.assign(kHeads * 2, {*ParseQuantizer(quantizer), width});
  return *KvCache::Create(config);
}

struct Ratios {
  double append = 0;  // bytes/s over those of copying
  double gather = 0;
};

Ratios Measure(const char* quantizer, int width, Tokens& in, Tokens& out,
               LoopRunner& loops) {
  const auto cache = Make(quantizer, width);
  const Execution on = {.loops = &loops};
  std::vector<double> copies, appends, gathers;
  for (int run = 0; run <= kRuns; ++run) {
    const int64_t id = *cache->AddSequence();
    copies.push_back(Seconds([&] { Copy(in, out, loops); }));
    appends.push_back(Seconds([&] {
      (void)cache->Append(id, 0, in.count, in.heads<ConstHeads>(0),
                          in.heads<ConstHeads>(1), on);
    }));
    gathers.push_back(Seconds([&] {
      (void)cache->Gather(id, 0, 0, in.count, out.heads<MutableHeads>(0),
                          out.heads<MutableHeads>(1), on);
    }));
    (void)cache->RemoveSequence(id);
    if (run > 0) continue;
    copies.clear();  // the first run warms up
    appends.clear();
    gathers.clear();
  }
  const double copy = Quantile(copies, 0.5);
  return {copy / Quantile(appends, 0.5), copy / Quantile(gathers, 0.5)};
}

void Run(const Options& options) {
  const int64_t tokens = options.quick ? 4096 : 16384;
  Tokens in(tokens), out(tokens);
  std::mt19937 engine(1);
  std::normal_distribution<float> normal;
  for (float& x : in.data) x = normal(engine);
  const auto loops = MakeThreadPool(0);
  for (const char* quantizer : {"rtn", "kivi", "quarot", "turboquant", "tcq"}) {
    for (int width : {3, 4, 5, 6}) {
      const Ratios ratios = Measure(quantizer, width, in, out, *loops);
      const double goal = width == 4 ? 0.5 : 0.3;
      for (const bool append : {true, false}) {
        const double ratio = append ? ratios.append : ratios.gather;
        Report({.row = "CPU append and dequantize",
                .measured = ratio,
                .unit = "x",
                .against = "memcpy of the fp32 values, same threads",
                .goal = width == 4 ? ">= 0.5x" : ">= 0.3x",
                .met = ratio >= goal,
                .note = std::string(append ? "append" : "dequantize") + ", " +
                        quantizer + ", " + std::to_string(width) + " bits, " +
                        std::to_string(tokens) + " tokens of 8 x 128, " +
                        std::to_string(loops->concurrency()) + " threads"});
      }
    }
  }
}

}  // namespace
}  // namespace ratequant::bench

int main(int argc, char** argv) {
  ratequant::bench::Run(ratequant::bench::ParseOptions(argc, argv));
  return 0;
}
