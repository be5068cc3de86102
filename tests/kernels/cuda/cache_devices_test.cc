// The cache on a GPU, its kernels run by the CPU, against the cache on the CPU:
// the same bytes, the same floats, and each goes on with what the other saved.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ratequant/kv/kv_cache.h"
#include "tests/cuda_on_cpu/runtime_api.h"

namespace ratequant::kv {
namespace {

using ::testing::HasSubstr;

constexpr int kLayers = 2, kHeads = 2, kQueryHeads = 6, kDim = 64;

KvCacheConfig Config(bool means = false) {
  QuantizerSpec kivi, rtn, quarot, turbo, tcq;
  rtn.kind = QuantizerKind::kRtn;
  quarot.kind = QuantizerKind::kQuarot;
  turbo.kind = QuantizerKind::kTurboquant;
  tcq.kind = QuantizerKind::kTcq;
  KvCacheConfig config;
  config.geometry = {kLayers, kHeads, kDim, kQueryHeads};
  config.groups = {{kivi, 3}, {turbo, 2}, {quarot, 4}, {kivi, 5},
                   {tcq, 3},  {tcq, 6},   {rtn, 6},    {{}, kFp16Width}};
  config.sink_tokens = 4;
  config.window = 20;
  if (!means) return config;
  std::mt19937_64 engine(3);
  std::normal_distribution<float> normal(0.0f, 2.0f);
  config.means.resize(config.groups.size() * kDim);
  for (float& mean : config.means) mean = normal(engine);
  return config;
}

std::unique_ptr<KvCache> Make(DeviceKind kind, bool means = false) {
  auto cache = KvCache::Create(
      Config(means),
      {.device = {kind, 0}, .num_pages = 60, .max_sequences = 8});
  EXPECT_TRUE(cache.ok()) << cache.status();
  return *std::move(cache);
}

// [heads, rows, kDim] of pseudo-random numbers, for `rows` rows.
struct Rows {
  Rows(int heads, int rows, uint64_t seed)
      : rows(rows), data(heads * rows * kDim) {
    std::mt19937_64 engine(seed);
    std::normal_distribution<float> normal(0.1f, 1.5f);
    for (float& x : data) x = normal(engine);
  }
  ConstHeads in() const {
    return {data.data(), DType::kFloat32, int64_t{rows} * kDim, kDim};
  }
  MutableHeads out() {
    return {data.data(), DType::kFloat32, int64_t{rows} * kDim, kDim};
  }

  int rows;
  std::vector<float> data;
};

std::vector<uint8_t> Saved(const KvCache& cache, int64_t id) {
  std::vector<uint8_t> out(*cache.SavedBytes(id));
  const absl::Status status = cache.SaveSequence(id, absl::MakeSpan(out));
  EXPECT_TRUE(status.ok()) << status;
  return out;
}

// One step of the sequences in `entries`, and its attention of all layers.
std::vector<float> Step(KvCache& cache, KvBatch& batch,
                        const std::vector<BatchEntry>& entries, uint64_t seed) {
  absl::Status status = cache.Prepare(entries, batch);
  EXPECT_TRUE(status.ok()) << status;
  const int rows = static_cast<int>(batch.rows());
  std::vector<float> attention;
  for (int layer = 0; layer < kLayers; ++layer) {
    const Rows k(kHeads, rows, seed + layer),
        v(kHeads, rows, seed + 10 + layer);
    const Rows q(kQueryHeads, rows, seed + 20 + layer);
    Rows out(kQueryHeads, rows, 0);
    status = cache.Append(batch, layer, k.in(), v.in());
    EXPECT_TRUE(status.ok()) << status;
    status = cache.Attend(batch, layer,
                          {.query_heads = kQueryHeads, .softmax_scale = 0.125f},
                          q.in(), out.out());
    EXPECT_TRUE(status.ok()) << status;
    attention.insert(attention.end(), out.data.begin(), out.data.end());
  }
  return attention;
}

// With means and without.
class CacheDevicesAgree : public testing::TestWithParam<bool> {};

TEST_P(CacheDevicesAgree, TheSameStepsGiveTheSameBytesAndAttention) {
  const auto cpu = Make(DeviceKind::kCpu, GetParam()),
             gpu = Make(DeviceKind::kCuda, GetParam());
  std::vector<std::unique_ptr<KvBatch>> batches;
  for (KvCache* cache : {cpu.get(), gpu.get()}) {
    batches.push_back(*cache->MakeBatch(3, 8));
    for (int i = 0; i < 2; ++i) ASSERT_TRUE(cache->AddSequence().ok());
    const Rows prompt(kHeads, 90, 5);
    for (int layer = 0; layer < kLayers; ++layer) {
      ASSERT_TRUE(cache->Append(1, layer, 90, prompt.in(), prompt.in()).ok());
    }
  }
  const std::vector<std::vector<BatchEntry>> steps = {
      {{1, 1}, {2, 3}}, {{2, 8}}, {{1, 1}, {2, 1}}, {{2, 5}, {1, 7}}};
  for (size_t i = 0; i < steps.size(); ++i) {
    const std::vector<float> want = Step(*cpu, *batches[0], steps[i], 100 * i);
    const std::vector<float> got = Step(*gpu, *batches[1], steps[i], 100 * i);
    ASSERT_EQ(got.size(), want.size());
    for (size_t j = 0; j < want.size(); ++j) {
      ASSERT_NEAR(got[j], want[j], 2e-5 + 2e-5 * std::abs(want[j]))
          << "step " << i << ", element " << j;
    }
  }
  // A truncated fork of each, a forked prefix of each, and steps that part
  // them.
  for (KvCache* cache : {cpu.get(), gpu.get()}) {
    ASSERT_EQ(*cache->ForkSequence(1, *cache->Length(1, 0)), 3);
    ASSERT_EQ(*cache->ForkSequence(1, 64), 4);
    ASSERT_TRUE(cache->TruncateSequence(3, *cache->Length(3, 0) - 5).ok());
  }
  const std::vector<BatchEntry> apart = {{3, 8}, {1, 8}, {4, 2}};
  const std::vector<float> want = Step(*cpu, *batches[0], apart, 7000);
  const std::vector<float> got = Step(*gpu, *batches[1], apart, 7000);
  for (size_t j = 0; j < want.size(); ++j) {
    ASSERT_NEAR(got[j], want[j], 2e-5 + 2e-5 * std::abs(want[j])) << j;
  }
  for (int64_t id : {1, 2, 3, 4}) {
    EXPECT_EQ(Saved(*gpu, id), Saved(*cpu, id)) << "sequence " << id;
    EXPECT_EQ(*gpu->AllocatedBytes(id), *cpu->AllocatedBytes(id));
  }
  for (int64_t id : {1, 2, 3, 4}) ASSERT_TRUE(gpu->RemoveSequence(id).ok());
  EXPECT_EQ(gpu->FreePages(), 60);
}

TEST_P(CacheDevicesAgree, EachReadsWhatTheOtherWrote) {
  const auto cpu = Make(DeviceKind::kCpu, GetParam()),
             gpu = Make(DeviceKind::kCuda, GetParam());
  const Rows k(kHeads, 150, 1), v(kHeads, 150, 2);
  for (auto [from, to] :
       {std::pair(cpu.get(), gpu.get()), std::pair(gpu.get(), cpu.get())}) {
    const int64_t id = *from->AddSequence();
    for (int layer = 0; layer < kLayers; ++layer) {
      ASSERT_TRUE(from->Append(id, layer, 150, k.in(), v.in()).ok());
    }
    const auto moved = to->LoadSequence(Saved(*from, id));
    ASSERT_TRUE(moved.ok()) << moved.status();
    EXPECT_EQ(Saved(*to, *moved), Saved(*from, id));
    for (int layer = 0; layer < kLayers; ++layer) {
      Rows k_from(kHeads, 117, 0), v_from = k_from, k_to = k_from,
                                   v_to = k_from;
      ASSERT_TRUE(
          from->Gather(id, layer, 3, 117, k_from.out(), v_from.out()).ok());
      ASSERT_TRUE(
          to->Gather(*moved, layer, 3, 117, k_to.out(), v_to.out()).ok());
      EXPECT_EQ(k_to.data, k_from.data);
      EXPECT_EQ(v_to.data, v_from.data);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Means, CacheDevicesAgree, testing::Bool());

TEST(CacheDevices, BadValuesAreFoundOnTheDevice) {
  const auto gpu = Make(DeviceKind::kCuda);
  const int64_t id = *gpu->AddSequence();
  Rows k(kHeads, 40, 1);
  const Rows v(kHeads, 40, 2);
  k.data[(1 * 40 + 13) * kDim + 5] = NAN;
  ASSERT_TRUE(gpu->Append(id, 1, 40, k.in(), v.in()).ok());
  const absl::Status status = gpu->CheckFaults();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("layer 1, head 1, K, row 13, channel 5"));
  EXPECT_TRUE(gpu->CheckFaults().ok());  // told once
}

TEST(CacheDevices, DevicesAndTensorsThatArentThere) {
  const auto make = [](int ordinal) {
    return KvCache::Create(Config(), {.device = {DeviceKind::kCuda, ordinal},
                                      .num_pages = 4})
        .status();
  };
  for (int ordinal : {-1, 1}) {
    const absl::Status status = make(ordinal);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(absl::StrCat("CUDA device ", ordinal,
                                       " was asked for; found: 1")));
  }
  {
    const ::cuda_on_cpu::ScopedDeviceCount none(0);
    const absl::Status status = make(0);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("no CUDA-capable device is detected"));
  }
  const auto gpu = Make(DeviceKind::kCuda);
  const int64_t id = *gpu->AddSequence();
  const Rows k(kHeads, 4, 1);
  ConstHeads off = k.in();
  off.data = k.data.data() + 1;
  EXPECT_EQ(gpu->Append(id, 0, 1, off, k.in()).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(gpu->Section(id, 0, 0, 0).status().code(),
            absl::StatusCode::kOutOfRange);
}

}  // namespace
}  // namespace ratequant::kv
