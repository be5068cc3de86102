// Replays of a capture: errors, bytes and what can't be replayed.

#include "clients/replay/replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "ratequant/kv/kv_cache.h"
#include "tests/clients/capture_builder.h"

namespace ratequant::replay {
namespace {

using ratequant::testing::CaptureBuilder;
using ratequant::testing::TempFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;

ReplayMap Map(const std::vector<kv::GroupFormat>& formats) {
  ReplayMap map = {
      .name = "map",
      .config = {.geometry = {.layers = 2, .kv_heads = 2, .head_dim = 32},
                 .groups = {},
                 .page_tokens = 16,
                 .sink_tokens = 2,
                 .window = 4,
                 .means = {}}};
  for (int group = 0; group < 8; ++group) {
    map.config.groups.push_back(formats[group % formats.size()]);
  }
  return map;
}

kv::GroupFormat Format(kv::QuantizerKind kind, int width) {
  return {.quantizer = {.kind = kind}, .width = width};
}

constexpr kv::GroupFormat kFp16 = {.quantizer = {}, .width = kv::kFp16Width};

class ReplayTest : public ::testing::Test {
 protected:
  // `builder` as a capture, open until the next.
  const CaptureFile& Open(const CaptureBuilder& builder = {}) {
    auto capture =
        CaptureFile::Open(folder_.Write("c.safetensors", builder.Bytes()));
    EXPECT_TRUE(capture.ok()) << capture.status();
    capture_ = std::make_unique<CaptureFile>(*std::move(capture));
    return *capture_;
  }

  absl::StatusOr<std::vector<ReplayResult>> Run(
      const std::vector<ReplayMap>& maps, int64_t decode_tokens = 12,
      int threads = 2) {
    if (capture_ == nullptr) Open();
    const auto loops = kv::MakeThreadPool(threads);
    return Replay(*capture_, maps, decode_tokens, *loops);
  }

  std::string Error(const ReplayMap& map, absl::StatusCode code,
                    int64_t decode_tokens = 12) {
    const auto results = Run({map}, decode_tokens);
    EXPECT_EQ(results.status().code(), code);
    return std::string(results.status().message());
  }

  TempFolder folder_;
  std::unique_ptr<CaptureFile> capture_;
};

double Mean(const ReplayResult& result) {
  double sum = 0;
  for (const LayerError& layer : result.layers) {
    EXPECT_GE(layer.worst, layer.mean);
    sum += layer.mean;
  }
  return sum / static_cast<double>(result.layers.size());
}

TEST_F(ReplayTest, FewerBitsAreFurtherFromExactAttention) {
  for (const kv::QuantizerKind kind :
       {kv::QuantizerKind::kKivi, kv::QuantizerKind::kTurboquant}) {
    std::vector<ReplayMap> maps = {Map({kFp16})};
    if (kind == kv::QuantizerKind::kKivi) maps[0].config.page_tokens = 32;
    for (const int width : {8, 4, 2}) {
      maps.push_back(Map({Format(kind, width)}));
      maps.back().config.page_tokens = 32;
    }
    const auto results = Run(maps);
    ASSERT_TRUE(results.ok()) << results.status();
    ASSERT_EQ(results->size(), 4u);
    EXPECT_GT(Mean((*results)[0]), 0);
    EXPECT_LT(Mean((*results)[0]), 1e-3);  // fp16's rounding
    EXPECT_LT(Mean((*results)[1]), 0.02);
    for (size_t i = 1; i < results->size(); ++i) {
      EXPECT_GT(Mean((*results)[i]), 2 * Mean((*results)[i - 1])) << i;
      EXPECT_LT((*results)[i].effective_bits, (*results)[i - 1].effective_bits);
    }
    EXPECT_EQ((*results)[2].code_bits, 4);
    for (const ReplayResult& result : *results) {
      EXPECT_GT(result.append_tokens_per_second, 0);
      EXPECT_GT(result.attend_tokens_per_second, 0);
    }
  }
}

// Attention of the last token over rows [kv_heads, 48, 32], by its formula.
std::vector<double> AttentionOfLast(const kv::AttentionParams& params,
                                    const float* keys, const float* values,
                                    const float* queries) {
  std::vector<double> out;
  const int first = params.sliding_window > 0 ? 48 - params.sliding_window : 0;
  for (int head = 0; head < 4; ++head) {
    const float* const k = keys + head / 2 * 48 * 32;
    const float* const v = values + head / 2 * 48 * 32;
    const float* const q = queries + (head * 48 + 47) * 32;
    std::vector<double> sums(32);
    double normalizer = 0;
    for (int t = first; t < 48; ++t) {
      double score = 0;
      for (int c = 0; c < 32; ++c) score += double{q[c]} * k[t * 32 + c];
      score *= params.softmax_scale;
      if (params.soft_cap > 0) {
        score = params.soft_cap * std::tanh(score / params.soft_cap);
      }
      normalizer += std::exp(score);
      for (int c = 0; c < 32; ++c) {
        sums[c] += std::exp(score) * v[t * 32 + c];
      }
    }
    for (const double sum : sums) out.push_back(sum / normalizer);
  }
  return out;
}

double RelativeError(const std::vector<double>& found,
                     const std::vector<double>& exact) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    difference += std::pow(found[i] - exact[i], 2);
    norm += std::pow(exact[i], 2);
  }
  return std::sqrt(difference / norm);
}

TEST_F(ReplayTest, ErrorAndBytesAreThoseOfTheCache) {
  const CaptureFile& capture = Open();
  const ReplayMap map = Map({Format(kv::QuantizerKind::kTurboquant, 3),
                             Format(kv::QuantizerKind::kRtn, 5), kFp16,
                             Format(kv::QuantizerKind::kQuarot, 2)});
  const auto results = Run({map}, 1);
  ASSERT_TRUE(results.ok()) << results.status();
  const ReplayResult& result = (*results)[0];
  ASSERT_EQ(result.layers.size(), 2u);
  const auto cache = kv::KvCache::Create(map.config, {.num_pages = 3});
  ASSERT_TRUE(cache.ok()) << cache.status();
  std::vector<double> mean(2), worst(2);
  for (int sequence = 0; sequence < 3; ++sequence) {
    const int64_t id = (*cache)->AddSequence().value();
    for (int layer = 0; layer < 2; ++layer) {
      const kv::ConstHeads k = capture.keys(sequence, layer);
      const kv::ConstHeads v = capture.values(sequence, layer);
      ASSERT_TRUE((*cache)->Append(id, layer, 48, k, v).ok());
      std::vector<float> keys(2 * 48 * 32), values(2 * 48 * 32);
      ASSERT_TRUE((*cache)
                      ->Gather(id, layer, 0, 48,
                               {.data = keys.data(),
                                .head_stride = 48 * 32,
                                .row_stride = 32},
                               {.data = values.data(),
                                .head_stride = 48 * 32,
                                .row_stride = 32})
                      .ok());
      const kv::AttentionParams& params = capture.info().attention[layer];
      const auto* q =
          static_cast<const float*>(capture.queries(sequence, layer).data);
      const double error = RelativeError(
          AttentionOfLast(params, keys.data(), values.data(), q),
          AttentionOfLast(params, static_cast<const float*>(k.data),
                          static_cast<const float*>(v.data), q));
      mean[layer] += error / 3;
      worst[layer] = std::max(worst[layer], error);
    }
    EXPECT_EQ(result.allocated_bytes, (*cache)->AllocatedBytes(id).value());
    ASSERT_TRUE((*cache)->RemoveSequence(id).ok());
  }
  for (int layer = 0; layer < 2; ++layer) {
    EXPECT_NEAR(result.layers[layer].mean, mean[layer], 1e-4 * mean[layer]);
    EXPECT_NEAR(result.layers[layer].worst, worst[layer], 1e-4 * worst[layer]);
  }
  EXPECT_EQ(result.code_bits, (3 + 5 + 16 + 2) / 4.0);
  EXPECT_DOUBLE_EQ(result.effective_bits,
                   8.0 * static_cast<double>(result.allocated_bytes) /
                       (2 * 2 * 2 * 48 * 32));
}

TEST_F(ReplayTest, MapsAndThreadsDontChangeOneAnothersErrors) {
  const ReplayMap a = Map({Format(kv::QuantizerKind::kRtn, 4)});
  const ReplayMap b = Map({Format(kv::QuantizerKind::kQuarot, 3)});
  const auto together = Run({a, b, a}, 12, 2);
  const auto alone = Run({a}, 12, 1);
  ASSERT_TRUE(together.ok() && alone.ok());
  for (const size_t i : {0, 2}) {
    EXPECT_EQ((*together)[i].allocated_bytes, (*alone)[0].allocated_bytes);
    for (size_t layer = 0; layer < 2; ++layer) {
      EXPECT_DOUBLE_EQ((*together)[i].layers[layer].mean,
                       (*alone)[0].layers[layer].mean);
    }
  }
}

TEST_F(ReplayTest, AMapOfAnotherGeometryIsRefusedNamingBoth) {
  ReplayMap map = Map({kFp16});
  map.config.geometry.kv_heads = 4;
  map.config.groups.resize(16);
  EXPECT_THAT(Error(map, absl::StatusCode::kInvalidArgument),
              AllOf(HasSubstr("map: the bit map is for 2 layers of 4 KV heads "
                              "with head_dim 32"),
                    HasSubstr("the capture, of toy, has 2 layers of 2 KV heads "
                              "with head_dim 32 and 4 query heads")));
  map = Map({kFp16});
  map.config.geometry.query_heads = 2;
  EXPECT_THAT(Error(map, absl::StatusCode::kInvalidArgument),
              HasSubstr("with head_dim 32 and 2 query heads; the capture"));
}

TEST_F(ReplayTest, FormatsThatTheRuntimeDoesntHaveAreRefused) {
  ReplayMap map = Map({Format(kv::QuantizerKind::kRtn, 9)});
  EXPECT_THAT(Error(map, absl::StatusCode::kInvalidArgument), HasSubstr("9"));
  map = Map({Format(kv::QuantizerKind::kRtn, 4)});
  map.config.page_tokens = 0;
  EXPECT_THAT(Error(map, absl::StatusCode::kInvalidArgument),
              HasSubstr("page_tokens 0"));
}

TEST_F(ReplayTest, DecodedTokensLeaveAPrefill) {
  for (const int64_t tokens : {int64_t{-1}, int64_t{0}, int64_t{48},
                               std::numeric_limits<int64_t>::max()}) {
    EXPECT_THAT(Error(Map({kFp16}), absl::StatusCode::kInvalidArgument, tokens),
                HasSubstr("tokens of sequences of 48; supported are 1 to 47"));
  }
  EXPECT_TRUE(Run({Map({kFp16})}, 47).ok());
}

TEST_F(ReplayTest, ValuesThatArentFiniteAreNamed) {
  const float nan = std::nanf("");
  CaptureBuilder keys;
  keys.Set("sequence.1.layer.1.key", (1 * 48 + 7) * 32 + 5, nan);
  Open(keys);
  EXPECT_THAT(Error(Map({kFp16}), absl::StatusCode::kDataLoss),
              AllOf(HasSubstr("map: sequence 1 of the capture: "),
                    HasSubstr("layer 1, head 1, K, token 7, channel 5")));
  CaptureBuilder decoded;  // K of a token that comes alone
  decoded.Set("sequence.2.layer.0.key", 40 * 32, nan);
  Open(decoded);
  EXPECT_THAT(Error(Map({kFp16}), absl::StatusCode::kDataLoss),
              HasSubstr("layer 0, head 0, K, token 40, channel 0"));
  CaptureBuilder queries;
  queries.Set("sequence.0.layer.1.query", (3 * 48 + 45) * 32, nan);
  Open(queries);
  EXPECT_THAT(Error(Map({kFp16}), absl::StatusCode::kDataLoss),
              HasSubstr("sequence 0 of the capture: layer 1, token 45: "));
}

}  // namespace
}  // namespace ratequant::replay
