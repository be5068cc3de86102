// The allocator's bytes against the memory the real cache takes.
#include "services/allocation/cache_bytes.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "ratequant/kv/kv_cache.h"
#include "ratequant/kv/quantizer.h"
#include "services/allocation/curve.h"
#include "services/allocation/planner.h"
#include "services/allocation/query.h"
#include "services/common/quantizers.h"
#include "services/common/resource_names.h"
#include "tests/services/allocation/calibration_generator.h"

namespace ratequant::allocation {
namespace {

using ::ratequant::testing::CalibrationSpec;

v1::Calibration Calibrated(const CalibrationSpec& spec) {
  v1::Calibration calibration = ratequant::testing::MakeCalibration(spec);
  calibration.set_name(CalibrationName("m", std::string(64, 'a')));
  return calibration;
}

absl::StatusOr<v1::BitMap> Plan(const v1::GetBitMapRequest& request,
                                const v1::Calibration& calibration) {
  const auto query = MakeQuery(request, calibration);
  if (!query.ok()) return query.status();
  return PlanBitMap(calibration, *query);
}

// The cache that a map describes.
kv::KvCacheConfig ConfigOf(const v1::BitMap& map, uint32_t page_tokens) {
  kv::KvCacheConfig config;
  config.geometry.layers = static_cast<int>(map.geometry().layers());
  config.geometry.kv_heads = static_cast<int>(map.geometry().kv_heads());
  config.geometry.head_dim = static_cast<int>(map.geometry().head_dim());
  for (int g = 0; g < map.width_size(); ++g) {
    const auto spec = kv::ParseQuantizer(
        QuantizerText(map.quantizers(map.quantizer_index(g))));
    EXPECT_TRUE(spec.ok()) << spec.status();
    config.groups.push_back({*spec, static_cast<int>(map.width(g))});
  }
  config.page_tokens = static_cast<int>(page_tokens);
  config.sink_tokens = static_cast<int>(map.cache().sink_tokens());
  config.window = static_cast<int>(map.cache().window());
  return config;
}

// Bytes a cache allocates for a sequence of `tokens` tokens.
int64_t Allocated(kv::KvCache& cache, int64_t tokens) {
  const kv::KvGeometry& g = cache.config().geometry;
  const std::vector<float> zeros(g.kv_heads * tokens * g.head_dim);
  const kv::ConstHeads heads = {zeros.data(), kv::DType::kFloat32,
                                tokens * g.head_dim, g.head_dim};
  const absl::StatusOr<kv::KvCache::SequenceId> id = cache.AddSequence();
  EXPECT_TRUE(id.ok()) << id.status();
  for (int layer = 0; layer < g.layers; ++layer) {
    const absl::Status status = cache.Append(*id, layer, tokens, heads, heads);
    EXPECT_TRUE(status.ok()) << status;
  }
  const absl::StatusOr<int64_t> bytes = cache.AllocatedBytes(*id);
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  return *bytes;
}

// fp16 rows beside the window for tokens that wait, under kivi K, for the rest
// of their group: a group less one token, as far as they have been used.
int64_t WaitingBytes(const kv::KvCacheConfig& config, int64_t tokens) {
  int64_t bytes = 0;
  for (size_t g = 0; g < config.groups.size(); g += 2) {
    const kv::QuantizerSpec& quantizer = config.groups[g].quantizer;
    if (quantizer.kind != kv::QuantizerKind::kKivi) continue;
    const int64_t rows =
        std::clamp<int64_t>(tokens - config.sink_tokens - config.window, 0,
                            quantizer.group_size - 1);
    bytes += rows * config.geometry.head_dim * 2;
  }
  return bytes;
}

v1::Quantizer Kivi(uint32_t group_size) {
  v1::Quantizer quantizer =
      ratequant::testing::DefaultQuantizer(v1::Quantizer::KIVI);
  quantizer.set_group_size(group_size);
  return quantizer;
}

TEST(CacheBytesTest, AreThoseTheRealCacheAllocates) {
  const auto rtn = ratequant::testing::DefaultQuantizer(v1::Quantizer::RTN);
  const CalibrationSpec specs[] = {
      {.layers = 2, .kv_heads = 3, .head_dim = 64},
      {.layers = 1, .kv_heads = 1, .head_dim = 128, .sink_tokens = 0},
      {.layers = 3, .kv_heads = 2, .head_dim = 256, .sink_tokens = 37},
      {.layers = 2,
       .kv_heads = 2,
       .head_dim = 96,
       .quantizers = {rtn, Kivi(32)}},
      {.layers = 2, .kv_heads = 2, .page_tokens = 128, .seed = 3},
      {.layers = 1,
       .kv_heads = 2,
       .page_tokens = 64,
       .quantizers = {Kivi(16), Kivi(64)}},
      {.layers = 1,
       .kv_heads = 2,
       .page_tokens = 16,
       .quantizers = {rtn, Kivi(8)}}};
  int maps = 0, waiting = 0;
  for (const CalibrationSpec& spec : specs) {
    const v1::Calibration calibration = Calibrated(spec);
    for (uint32_t window : {0u, 32u, 101u}) {
      for (int64_t tokens : {1, 31, 33, 36, 37, 63, 132, 133, 517, 1024}) {
        v1::GetBitMapRequest request;
        request.mutable_cache()->set_context_tokens(tokens);
        request.mutable_cache()->set_window(window);
        for (double bits : {3.0, 5.0, 8.0, 16.0}) {
          request.mutable_budget()->set_effective_bits(bits);
          const auto map = Plan(request, calibration);
          // Short sequences are mostly fp16: too much for 3 bits.
          if (!map.ok()) continue;
          const kv::KvCacheConfig config = ConfigOf(*map, spec.page_tokens);
          SCOPED_TRACE(absl::StrCat(tokens, " tokens, window ", window,
                                    ", head_dim ", spec.head_dim, ", pages of ",
                                    spec.page_tokens));
          const auto cache = kv::KvCache::Create(config);
          ASSERT_TRUE(cache.ok()) << cache.status();
          const int64_t counted = std::llround(map->bytes_per_token() * tokens);
          const int64_t more = WaitingBytes(config, tokens);
          ASSERT_EQ(kv::SequenceBytes(config, (*cache)->layout(), tokens),
                    counted);
          ASSERT_EQ(Allocated(**cache, tokens), counted + more);
          ++maps;
          if (more > 0) ++waiting;
        }
      }
    }
  }
  EXPECT_GT(maps, 300);
  EXPECT_GT(waiting, 20);
}

TEST(CacheBytesTest, WhatAPlanSaysFitsTheRealCacheFits) {
  const CalibrationSpec spec = {
      .layers = 4,
      .kv_heads = 2,
      .quantizers = {
          ratequant::testing::DefaultQuantizer(v1::Quantizer::RTN),
          ratequant::testing::DefaultQuantizer(v1::Quantizer::TURBOQUANT)}};
  const v1::Calibration calibration = Calibrated(spec);
  const int64_t memory = 3 << 20;
  v1::GetRateDistortionCurveRequest request;
  request.mutable_cache()->set_context_tokens(700);
  request.mutable_capacity()->set_memory_bytes(memory);
  request.mutable_capacity()->set_sequences(7);
  const auto curve =
      PlanCurve(calibration, *MakeQuery(request, calibration), request);
  ASSERT_TRUE(curve.ok()) << curve.status();
  const v1::RateDistortionPoint& best = curve->points(curve->points_size() - 1);
  v1::GetBitMapRequest of;
  *of.mutable_cache() = request.cache();
  of.mutable_budget()->set_bytes_per_token(best.bytes_per_token());
  const auto map = Plan(of, calibration);
  ASSERT_TRUE(map.ok()) << map.status();
  const auto cache = kv::KvCache::Create(ConfigOf(*map, spec.page_tokens));
  ASSERT_TRUE(cache.ok()) << cache.status();
  int64_t taken = 0;
  for (int64_t i = 0; i < best.max_sequences(); ++i) {
    taken += Allocated(**cache, 700);
  }
  EXPECT_LE(taken, memory);
  EXPECT_GT(taken + Allocated(**cache, 700), memory);
  EXPECT_LE(7 * Allocated(**cache, best.max_context_tokens()), memory);
  EXPECT_GT(7 * Allocated(**cache, best.max_context_tokens() + 1), memory);
}

}  // namespace
}  // namespace ratequant::allocation
