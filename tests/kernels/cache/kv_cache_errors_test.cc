// Everything the cache refuses, and that it is as it was afterwards.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "tests/kernels/cache/cache_case.h"

namespace ratequant::kv {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class KvCacheErrors : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<KvCache>> cache =
        KvCache::Create(MixedConfig(32, 4, 32));
    ASSERT_TRUE(cache.ok()) << cache.status();
    cache_ = *std::move(cache);
    id_ = *cache_->AddSequence();
    ASSERT_TRUE(AppendChunked(*cache_, id_, 1, RandomValues(75, 1),
                              RandomValues(75, 2), {75})
                    .ok());
    before_ = GatherAll(*cache_, id_, 1);
    bytes_ = *cache_->AllocatedBytes(id_);
    free_ = cache_->FreePages();
  }

  // The cache refused, says why, and holds what it held.
  void ExpectRefused(const absl::Status& status, absl::StatusCode code,
                     const ::testing::Matcher<const std::string&>& text) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), text);
    EXPECT_EQ(*cache_->Length(id_, 1), 75);
    EXPECT_EQ(*cache_->AllocatedBytes(id_), bytes_);
    EXPECT_EQ(cache_->FreePages(), free_);
    const Gathered after = GatherAll(*cache_, id_, 1);
    EXPECT_EQ(after.keys.data, before_.keys.data);
    EXPECT_EQ(after.values.data, before_.values.data);
  }

  absl::Status Append(int layer, const Values& keys, const Values& values) {
    return cache_->Append(id_, layer, keys.tokens, Slice(keys, 0),
                          Slice(values, 0));
  }

  std::unique_ptr<KvCache> cache_;
  KvCache::SequenceId id_ = 0;
  Gathered before_;
  int64_t bytes_ = 0;
  int64_t free_ = 0;
};

TEST_F(KvCacheErrors, ValuesThatFp16CantHoldAreNamedByPlace) {
  const Values good = RandomValues(60, 3);
  for (float bad : {NAN, INFINITY, -INFINITY, 65520.0f, -1e9f}) {
    Values keys = good;
    keys.data[(1 * 60 + 17) * kDim + 5] = bad;  // head 1, row 17, channel 5
    ExpectRefused(Append(1, keys, good), absl::StatusCode::kDataLoss,
                  AllOf(HasSubstr("layer 1, head 1, K, token 92, channel 5"),
                        HasSubstr("65504")));
    Values values = good;
    values.data[59 * kDim + 31] = bad;  // head 0, the last row and channel
    ExpectRefused(Append(1, good, values), absl::StatusCode::kDataLoss,
                  HasSubstr("layer 1, head 0, V, token 134, channel 31"));
  }
  // 65504 itself is fine.
  Values most = good;
  most.data[0] = -65504.0f;
  EXPECT_TRUE(Append(1, most, good).ok());
}

TEST_F(KvCacheErrors, TheCacheGoesOnAfterAnError) {
  Values bad = RandomValues(60, 3);
  bad.data.back() = NAN;
  ASSERT_FALSE(Append(1, bad, bad).ok());
  const Values keys = RandomValues(60, 4), values = RandomValues(60, 5);
  ASSERT_TRUE(Append(1, keys, values).ok());
  const auto other = *cache_->AddSequence();
  ASSERT_TRUE(AppendChunked(*cache_, other, 1, RandomValues(75, 1),
                            RandomValues(75, 2), {75})
                  .ok());
  ASSERT_TRUE(AppendChunked(*cache_, other, 1, keys, values, {60}).ok());
  EXPECT_EQ(GatherAll(*cache_, id_, 1).keys.data,
            GatherAll(*cache_, other, 1).keys.data);
}

TEST_F(KvCacheErrors, UnknownSequences) {
  const Values v = RandomValues(1, 1);
  for (KvCache::SequenceId id : {int64_t{0}, int64_t{-1}, id_ + 1}) {
    const auto text = HasSubstr("no sequence " + std::to_string(id));
    const auto code = absl::StatusCode::kNotFound;
    ExpectRefused(cache_->Append(id, 1, 1, Slice(v, 0), Slice(v, 0)), code,
                  text);
    ExpectRefused(cache_->Gather(id, 1, 0, 0, {}, {}), code, text);
    ExpectRefused(cache_->Length(id, 1).status(), code, text);
    ExpectRefused(cache_->AllocatedBytes(id).status(), code, text);
    ExpectRefused(cache_->Section(id, 1, 0, 0).status(), code, text);
    ExpectRefused(cache_->RemoveSequence(id), code, text);
  }
}

TEST_F(KvCacheErrors, LayersOutOfRange) {
  const Values v = RandomValues(1, 1);
  for (int layer : {-1, kLayers}) {
    const auto text = HasSubstr("layer " + std::to_string(layer));
    const auto code = absl::StatusCode::kInvalidArgument;
    ExpectRefused(Append(layer, v, v), code, text);
    ExpectRefused(cache_->Gather(id_, layer, 0, 0, {}, {}), code, text);
    ExpectRefused(cache_->Length(id_, layer).status(), code, text);
    ExpectRefused(cache_->Section(id_, layer, 0, 0).status(), code, text);
  }
}

TEST_F(KvCacheErrors, TensorsThatDontFit) {
  const Values v = RandomValues(2, 1);
  const ConstHeads good = Slice(v, 0);
  const auto expect = [&](int64_t tokens, const ConstHeads& keys,
                          const ConstHeads& values, absl::string_view text) {
    ExpectRefused(cache_->Append(id_, 1, tokens, keys, values),
                  absl::StatusCode::kInvalidArgument,
                  HasSubstr(std::string(text)));
  };
  expect(-1, good, good, "-1 tokens");
  ExpectRefused(cache_->Append(id_, 1, int64_t{1} << 41, good, good),
                absl::StatusCode::kResourceExhausted,
                HasSubstr("would have 75 + 2199023255552 tokens"));
  ConstHeads bad = good;
  bad.data = nullptr;
  expect(2, bad, good, "keys: null");
  expect(2, good, bad, "values: null");
  bad = good;
  bad.dtype = static_cast<DType>(7);
  expect(2, good, bad, "values: dtype 7");
  bad = good;
  bad.row_stride = kDim - 1;
  expect(2, bad, good, "keys: row stride 31");
  bad = good;
  bad.head_stride = 0;
  expect(2, good, bad, "values: head stride 0");
  bad = good;
  bad.data = reinterpret_cast<const uint8_t*>(good.data) + 2;
  expect(1, bad, good, "keys: the address");
}

TEST_F(KvCacheErrors, RangesAndOutputsThatDontFit) {
  std::vector<float> out(kHeads * 80 * kDim, -3);
  const MutableHeads good = {out.data(), DType::kFloat32, 75 * kDim, kDim};
  const auto expect = [&](int64_t first, int64_t count,
                          const MutableHeads& keys, absl::StatusCode code,
                          absl::string_view text) {
    ExpectRefused(cache_->Gather(id_, 1, first, count, keys, good), code,
                  HasSubstr(std::string(text)));
    EXPECT_EQ(out, std::vector<float>(out.size(), -3));
  };
  const auto range = absl::StatusCode::kOutOfRange;
  expect(0, 76, good, range, "which has 75");
  expect(75, 1, good, range, "which has 75");
  expect(-1, 2, good, range, "which has 75");
  expect(3, -1, good, range, "which has 75");
  expect(1, INT64_MAX, good, range, "which has 75");
  const auto invalid = absl::StatusCode::kInvalidArgument;
  MutableHeads bad = good;
  bad.dtype = static_cast<DType>(-1);
  expect(0, 75, bad, invalid, "dtype -1");
  bad = good;
  bad.row_stride = 1;
  expect(0, 75, bad, invalid, "row stride 1");
  bad = good;
  bad.head_stride = 74 * kDim;  // the second head begins in the first
  expect(0, 75, bad, invalid, "overlap");
}

TEST_F(KvCacheErrors, SectionsThatDontExist) {
  EXPECT_EQ(cache_->Section(id_, 1, -1, 0).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(cache_->Section(id_, 1, 4, 0).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(cache_->Section(id_, 1, 0, -1).status().code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ(cache_->Section(id_, 1, 0, 2).status().code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_TRUE(cache_->Section(id_, 1, 0, 1).ok());
}

TEST(KvCacheCreate, RefusesWhatTheLayoutRefuses) {
  KvCacheConfig config = MixedConfig(32, 4, 32);
  config.groups[5].width = 0;
  const auto cache = KvCache::Create(config);
  EXPECT_EQ(cache.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(cache.status().message()),
              AllOf(HasSubstr("layer 1, head 0, V"), HasSubstr("width 0")));
}

}  // namespace
}  // namespace ratequant::kv
