// The attention-output distortion on every target that the program has.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/reference/reference_attention.h"
#include "tests/kernels/codec_test_util.h"
#include "tests/kernels/sweep/sweep_cases.h"

namespace ratequant::kv {
namespace {

// A layer of a sequence, all tensors [heads, tokens, dim].
struct Layer {
  int layer = 0;
  int tokens = 0;
  std::vector<float> keys, values, queries, gradients;
};

struct Shape {
  std::string name;
  int dim = 16;
  int tokens = 64;
  int sinks = 4;
  int window = 20;
  int sliding_window = 0;
  float soft_cap = 0;
  DType dtype = DType::kFloat32;
};

constexpr int kKvHeads = 2;
constexpr int kQueryHeads = 4;

DistortionSweep::Options OptionsOf(const Shape& shape,
                                   const SweepTarget& target) {
  DistortionSweep::Options options = MakeSweepOptions(shape.dim, target, 2);
  options.layers = 1;
  options.kv_heads = kKvHeads;
  options.query_heads = kQueryHeads;
  options.sink_tokens = shape.sinks;
  options.attention_window = shape.window;
  options.widths = {1, 3, 8};
  return options;
}

AttentionParams ParamsOf(const Shape& shape) {
  return {kQueryHeads, 1.0f / std::sqrt(float(shape.dim)), shape.soft_cap,
          shape.sliding_window};
}

std::vector<float> Numbers(size_t count, float scale, DType dtype,
                           TestRandom& random) {
  std::vector<float> numbers;
  for (size_t i = 0; i < count; ++i) numbers.push_back(scale * random.Normal());
  const std::vector<uint8_t> stored = StoreAs(numbers, dtype, count, count);
  for (size_t i = 0; i < count; ++i) {
    numbers[i] = LoadElement(stored.data(), dtype, i);
  }
  return numbers;
}

Layer MakeLayer(const Shape& shape, uint64_t seed) {
  TestRandom random(seed);
  const size_t row = size_t(shape.tokens) * shape.dim;
  return {0,
          shape.tokens,
          Numbers(kKvHeads * row, 1, shape.dtype, random),
          Numbers(kKvHeads * row, 1, shape.dtype, random),
          Numbers(kQueryHeads * row, 1.5f, shape.dtype, random),
          Numbers(kQueryHeads * row, 1e-3f, shape.dtype, random)};
}

// What AddAttention takes, and the memory it points to.
struct Stored {
  Stored(const Layer& layer, const Shape& shape) {
    const std::vector<float>* tensors[] = {&layer.keys, &layer.values,
                                           &layer.queries, &layer.gradients};
    for (int i = 0; i < 4; ++i) {
      bytes[i] = StoreAs(*tensors[i], shape.dtype, tensors[i]->size(),
                         tensors[i]->size());
    }
    capture = {layer.layer,     layer.tokens,    bytes[0].data(),
               bytes[1].data(), bytes[2].data(), bytes[3].data(),
               shape.dtype,     ParamsOf(shape)};
  }
  std::vector<uint8_t> bytes[4];
  AttentionCapture capture;
};

// K, V and attention, twice over: d2 comes from AddAttention alone.
DistortionTables Measure(const DistortionSweep::Options& options,
                         const Shape& shape, const std::vector<Layer>& layers) {
  auto sweep = DistortionSweep::Create(options);
  EXPECT_TRUE(sweep.ok()) << sweep.status();
  for (const Layer& layer : layers) {
    const Stored stored(layer, shape);
    const AttentionCapture& c = stored.capture;
    for (const Tensor tensor : {Tensor::kKey, Tensor::kValue}) {
      const void* data = tensor == Tensor::kKey ? c.keys : c.values;
      const absl::Status added =
          (*sweep)->Add(0, tensor, c.tokens, data, data, c.dtype);
      EXPECT_TRUE(added.ok()) << added;
    }
    const absl::Status added = (*sweep)->AddAttention(c);
    EXPECT_TRUE(added.ok()) << added;
  }
  auto tables = (*sweep)->Finish();
  EXPECT_TRUE(tables.ok()) << tables.status();
  return *std::move(tables);
}

// All rows of a KV head that went through the public codec.
std::vector<float> RoundTrip(const std::vector<float>& rows, const Shape& shape,
                             const QuantizerSpec& spec, Tensor tensor,
                             int width) {
  const int dim = shape.dim;
  auto codec =
      Codec::Create({spec, tensor, width, dim, 32, Backend::kReference});
  EXPECT_TRUE(codec.ok()) << codec.status();
  std::vector<float> decoded(rows.size());
  std::vector<uint8_t> page((*codec)->layout().section_bytes);
  for (int first = 0; first < shape.tokens; first += 32) {
    const int skip = std::clamp(shape.sinks - first, 0, 32);
    EXPECT_TRUE((*codec)
                    ->Encode({&rows[first * dim], DType::kFloat32, dim}, 0, 32,
                             skip, absl::MakeSpan(page))
                    .ok());
    EXPECT_TRUE(
        (*codec)
            ->Decode(page, 0, 32, {&decoded[first * dim], DType::kFloat32, dim})
            .ok());
  }
  return decoded;
}

// The part of head `head` that belongs to one KV head's worth of queries.
std::vector<float> HeadsOf(const std::vector<float>& tensor, const Shape& shape,
                           int head, int count) {
  const size_t row = size_t(shape.tokens) * shape.dim;
  return {tensor.begin() + head * row, tensor.begin() + (head + count) * row};
}

// The definition: for every query, attention over the sequence with the tokens
// replaced that this query would read back from packed bytes.
double SquaredChanges(const Layer& layer, const Shape& shape, int head,
                      Tensor tensor, const std::vector<float>& decoded) {
  const int dim = shape.dim, share = kQueryHeads / kKvHeads;
  const std::vector<float> keys = HeadsOf(layer.keys, shape, head, 1);
  const std::vector<float> values = HeadsOf(layer.values, shape, head, 1);
  const std::vector<float> queries =
      HeadsOf(layer.queries, shape, head * share, share);
  AttentionParams params = ParamsOf(shape);
  params.query_heads = share;
  const int64_t stride = int64_t(shape.tokens) * dim;
  const auto heads = [&](const std::vector<float>& rows) {
    return ConstHeads{rows.data(), DType::kFloat32, stride, dim};
  };
  double sum = 0;
  for (int t = shape.sinks; t < shape.tokens; ++t) {
    std::vector<float> mixed = tensor == Tensor::kKey ? keys : values;
    for (int s = shape.sinks; s <= t - shape.window; ++s) {
      std::copy_n(&decoded[s * dim], dim, &mixed[s * dim]);
    }
    const SequenceStep step = {.begin = t, .count = 1, .first_row = t};
    const auto attend = [&](const auto& k, const auto& v) {
      return ReferenceAttention(params, 1, dim, step, heads(k), heads(v),
                                heads(queries));
    };
    const auto exact = attend(keys, values);
    const auto other =
        tensor == Tensor::kKey ? attend(mixed, values) : attend(keys, mixed);
    double change = 0;
    for (int j = 0; j < share; ++j) {
      const float* y =
          &layer.gradients[((head * share + j) * size_t(shape.tokens) + t) *
                           dim];
      for (int c = 0; c < dim; ++c) {
        change += y[c] * (other[j * dim + c] - exact[j * dim + c]);
      }
    }
    sum += change * change;
  }
  return sum;
}

class AttentionSweepTest
    : public testing::TestWithParam<std::tuple<SweepTarget, Shape>> {};

TEST_P(AttentionSweepTest, IsWithinBoundsOfTheDefinition) {
  const auto& [target, shape] = GetParam();
  const DistortionSweep::Options options = OptionsOf(shape, target);
  const std::vector<Layer> layers = {MakeLayer(shape, 5), MakeLayer(shape, 6)};
  const DistortionTables tables = Measure(options, shape, layers);
  // What distortion.h promises; the reference differs from this test's sums in
  // their order alone.
  const double bound = target.backend == Backend::kReference ? 1e-9 : 1e-3;
  for (const DistortionTable& table : tables.tables) {
    ASSERT_EQ(table.d2.size(), size_t(kKvHeads) * 2 * 3);
    for (int group = 0; group < 2 * kKvHeads; ++group) {
      const Tensor tensor = group % 2 == 0 ? Tensor::kKey : Tensor::kValue;
      for (int w = 0; w < 3; ++w) {
        double sum = 0;
        for (const Layer& layer : layers) {
          const auto& rows = tensor == Tensor::kKey ? layer.keys : layer.values;
          sum += SquaredChanges(
              layer, shape, group / 2, tensor,
              RoundTrip(HeadsOf(rows, shape, group / 2, 1), shape,
                        table.quantizer, tensor, table.widths[w]));
        }
        const double expected = sum / (2 * (shape.tokens - shape.sinks));
        ASSERT_GT(expected, 0);
        ASSERT_NEAR(table.d2[group * 3 + w] / expected, 1, bound)
            << QuantizerName(table.quantizer) << ", group " << group
            << ", width " << table.widths[w];
      }
    }
  }
}

std::vector<Shape> Shapes() {
  return {{.name = "Plain"},
          {.name = "NothingExact", .sinks = 0, .window = 0},
          {.name = "SinksAcrossBlocks", .tokens = 96, .sinks = 40, .window = 7},
          {.name = "SoftCap", .soft_cap = 2},
          {.name = "SlidingWindow", .tokens = 96, .sliding_window = 41},
          {.name = "Half", .dim = 32, .dtype = DType::kFloat16},
          {.name = "BFloat", .dim = 24, .dtype = DType::kBFloat16}};
}

INSTANTIATE_TEST_SUITE_P(All, AttentionSweepTest,
                         testing::Combine(testing::ValuesIn(SweepTargets()),
                                          testing::ValuesIn(Shapes())),
                         [](const auto& info) {
                           return std::get<0>(info.param).name +
                                  std::get<1>(info.param).name;
                         });

class AttentionErrorTest : public testing::TestWithParam<SweepTarget> {};

INSTANTIATE_TEST_SUITE_P(All, AttentionErrorTest,
                         testing::ValuesIn(SweepTargets()),
                         [](const auto& info) { return info.param.name; });

TEST_P(AttentionErrorTest, ThreadsDoNotChangeABit) {
  const Shape shape = {.name = "", .tokens = 96};
  DistortionSweep::Options options = OptionsOf(shape, GetParam());
  const std::vector<Layer> layers = {MakeLayer(shape, 1)};
  options.threads = 1;
  const DistortionTables one = Measure(options, shape, layers);
  options.threads = 3;
  const DistortionTables three = Measure(options, shape, layers);
  for (size_t q = 0; q < one.tables.size(); ++q) {
    EXPECT_EQ(one.tables[q].d2, three.tables[q].d2);
  }
}

TEST_P(AttentionErrorTest, BadNumbersAreNamedAndNothingIsAdded) {
  const Shape shape = {.name = ""};
  const DistortionSweep::Options options = OptionsOf(shape, GetParam());
  auto sweep = *DistortionSweep::Create(options);
  const float inf = std::numeric_limits<float>::infinity();
  const struct {
    std::vector<float> Layer::*tensor;
    float bad;
    const char* message;
  } cases[] = {
      {&Layer::queries, NAN, "nan in Q, layer 0, head 1, token 60, channel 3"},
      {&Layer::gradients, -inf,
       "-inf in the output's gradient, layer 0, head 1, token 60, channel 3"},
      {&Layer::keys, 70000.0f,
       "70000, beyond fp16's 65504, in K, layer 0, head 1, token 60, channel "
       "3"}};
  for (const auto& c : cases) {
    Layer layer = MakeLayer(shape, 3);
    (layer.*c.tensor)[(1 * 64 + 60) * 16 + 3] = c.bad;
    const absl::Status status =
        sweep->AddAttention(Stored(layer, shape).capture);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(status.message(), c.message);
  }
  if (GetParam().backend != Backend::kReference) {  // it has doubles
    Layer layer = MakeLayer(shape, 3);
    for (float& y : layer.gradients) y = 3e38f;
    const absl::Status status =
        sweep->AddAttention(Stored(layer, shape).capture);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(status.message(),
              "the output's gradient of layer 0 is too large: the "
              "attention-output distortion isn't finite");
  }
  const Stored good(MakeLayer(shape, 3), shape);
  for (const Tensor tensor : {Tensor::kKey, Tensor::kValue}) {
    ASSERT_TRUE(sweep
                    ->Add(0, tensor, 64, good.capture.keys, good.capture.keys,
                          DType::kFloat32)
                    .ok());
  }
  const absl::Status unfinished = sweep->Finish().status();
  EXPECT_EQ(unfinished.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(unfinished.message(),
            "attention of layer 0 got 0 tokens besides sinks, K of layer 0 60");
}

TEST_P(AttentionErrorTest, WhatIsNotSupportedIsNamed) {
  const Shape shape = {.name = ""};
  DistortionSweep::Options options = OptionsOf(shape, GetParam());
  auto sweep = *DistortionSweep::Create(options);
  const Stored stored(MakeLayer(shape, 3), shape);
  const auto expect_refused = [&](const AttentionCapture& capture,
                                  const std::string& message) {
    const absl::Status status = sweep->AddAttention(capture);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(status.message(), message);
  };
  AttentionCapture bad = stored.capture;
  bad.layer = 1;
  expect_refused(bad, "layer 1 isn't one of the 1 layers");
  bad = stored.capture;
  bad.queries = nullptr;
  expect_refused(bad, "keys, values, queries or output_gradients are null");
  bad = stored.capture;
  bad.params.query_heads = 2;
  expect_refused(bad, "attention has 2 query heads, the sweep 4");
  bad = stored.capture;
  bad.params.softmax_scale = 0;
  expect_refused(bad,
                 "softmax_scale 0 isn't supported; supported: finite, above 0");
  bad = stored.capture;
  bad.tokens = 48;
  expect_refused(bad,
                 "48 tokens aren't supported; supported: multiples of 32 above "
                 "the 24 of sinks and window");
  options.query_heads = 3;
  EXPECT_EQ(DistortionSweep::Create(options).status().message(),
            "query_heads 3 aren't supported; supported: multiples of the 2 KV "
            "heads");
  options.query_heads = 0;
  sweep = *DistortionSweep::Create(options);
  EXPECT_EQ(sweep->AddAttention(stored.capture).message(),
            "the sweep doesn't measure d2: its query_heads are 0");
}

}  // namespace
}  // namespace ratequant::kv
