// Batches, forks and the bytes that move between caches.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cache/sequence_state.h"
#include "tests/kernels/cache/cache_case.h"

namespace ratequant::kv {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::unique_ptr<KvCache> Make(const KvCacheConfig& config) {
  absl::StatusOr<std::unique_ptr<KvCache>> cache =
      KvCache::Create(config, {.num_pages = 1000, .max_sequences = 32});
  EXPECT_TRUE(cache.ok()) << cache.status();
  return *std::move(cache);
}

// Tokens [first, first + count) of a sequence, by its seed: values don't depend
// on how they are cut.
Values Tokens(uint64_t seed, int64_t first, int64_t count) {
  const Values all = RandomValues(400, seed);
  Values some;
  some.tokens = count;
  for (int head = 0; head < kHeads; ++head) {
    const float* begin = all.data.data() + (head * 400 + first) * kDim;
    some.data.insert(some.data.end(), begin, begin + count * kDim);
  }
  return some;
}

void AppendTokens(KvCache& cache, int64_t id, uint64_t seed, int64_t first,
                  int64_t count) {
  const Values k = Tokens(seed, first, count);
  const Values v = Tokens(seed + 1, first, count);
  for (int layer = 0; layer < kLayers; ++layer) {
    const absl::Status status =
        cache.Append(id, layer, count, Slice(k, 0), Slice(v, 0));
    ASSERT_TRUE(status.ok()) << status;
  }
}

// Everything a cache holds of a sequence.
std::vector<uint8_t> Saved(const KvCache& cache, int64_t id) {
  const absl::StatusOr<int64_t> bytes = cache.SavedBytes(id);
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  std::vector<uint8_t> out(bytes.ok() ? *bytes : 0);
  const absl::Status status = cache.SaveSequence(id, absl::MakeSpan(out));
  EXPECT_TRUE(status.ok()) << status;
  return out;
}

TEST(KvCacheSteps, ABatchStoresWhatSingleAppendsStore) {
  const auto cache = Make(MixedConfig(32, 4, 20));
  std::vector<int64_t> ids, alone;
  for (int i = 0; i < 5; ++i) {
    ids.push_back(*cache->AddSequence());
    alone.push_back(*cache->AddSequence());
  }
  const auto batch = cache->MakeBatch(5, 40);
  ASSERT_TRUE(batch.ok());
  std::mt19937 engine(1);
  std::vector<int64_t> lengths(5, 0);
  const auto pool = MakeThreadPool(2);
  for (int step = 0; step < 25; ++step) {
    // Some of the sequences, in any order, with 1 to 40 tokens each.
    std::vector<BatchEntry> entries;
    std::vector<int> who = {0, 1, 2, 3, 4};
    std::shuffle(who.begin(), who.end(), engine);
    who.resize(1 + engine() % 5);
    Values keys, values;
    std::vector<Values> k_parts, v_parts;
    for (int i : who) {
      const int32_t tokens =
          step % 2 == 0 ? 1 : static_cast<int32_t>(1 + engine() % 12);
      entries.push_back({ids[i], tokens});
      k_parts.push_back(Tokens(100 * i, lengths[i], tokens));
      v_parts.push_back(Tokens(100 * i + 1, lengths[i], tokens));
      AppendTokens(*cache, alone[i], 100 * i, lengths[i], tokens);
      lengths[i] += tokens;
      keys.tokens += tokens;
    }
    values.tokens = keys.tokens;
    for (int head = 0; head < kHeads; ++head) {
      const auto add = [head](const std::vector<Values>& parts, Values& all) {
        for (const Values& part : parts) {
          const auto begin = part.data.begin() + head * part.tokens * kDim;
          all.data.insert(all.data.end(), begin, begin + part.tokens * kDim);
        }
      };
      add(k_parts, keys);
      add(v_parts, values);
    }
    const Execution on = {.loops = step % 3 == 0 ? pool.get() : nullptr};
    absl::Status status = cache->Prepare(entries, **batch, on);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ((*batch)->rows(), keys.tokens);
    for (int layer = 0; layer < kLayers; ++layer) {
      status =
          cache->Append(**batch, layer, Slice(keys, 0), Slice(values, 0), on);
      ASSERT_TRUE(status.ok()) << status;
    }
  }
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(Saved(*cache, ids[i]), Saved(*cache, alone[i])) << i;
  }
}

TEST(KvCacheSteps, AnyChunkingSavesTheSameBytes) {
  const auto cache = Make(MixedConfig(32, 4, 20));
  const int64_t whole = *cache->AddSequence(), pieces = *cache->AddSequence();
  AppendTokens(*cache, whole, 5, 0, 333);
  std::mt19937 engine(2);
  for (int64_t done = 0; done < 333;) {
    const int64_t count = std::min<int64_t>(333 - done, 1 + engine() % 50);
    AppendTokens(*cache, pieces, 5, done, count);
    done += count;
  }
  EXPECT_EQ(Saved(*cache, whole), Saved(*cache, pieces));
}

TEST(KvCacheSteps, AForkGoesItsOwnWay) {
  for (int window : {0, 20, 32}) {
    for (int length : {3, 24, 70, 96, 201}) {
      SCOPED_TRACE(absl::StrCat("window ", window, ", ", length, " tokens"));
      const auto cache = Make(MixedConfig(32, 4, window));
      const int64_t parent = *cache->AddSequence();
      AppendTokens(*cache, parent, 3, 0, length);
      const std::vector<uint8_t> before = Saved(*cache, parent);
      const int64_t free = cache->FreePages();
      const auto child = cache->ForkSequence(parent, length);
      ASSERT_TRUE(child.ok()) << child.status();
      EXPECT_EQ(cache->FreePages(), free);  // all pages are shared
      EXPECT_EQ(Saved(*cache, *child), before);

      // The child goes on with other tokens, token by token, the parent is as
      // it was; then the parent goes on as if there were no child.
      const int64_t child_alone = *cache->AddSequence();
      AppendTokens(*cache, child_alone, 3, 0, length);
      for (int t = 0; t < 70; ++t) {
        AppendTokens(*cache, *child, 9, t, 1);
        AppendTokens(*cache, child_alone, 9, t, 1);
      }
      EXPECT_EQ(Saved(*cache, parent), before);
      EXPECT_EQ(Saved(*cache, *child), Saved(*cache, child_alone));
      AppendTokens(*cache, parent, 3, length, 50);
      const int64_t parent_alone = *cache->AddSequence();
      AppendTokens(*cache, parent_alone, 3, 0, length + 50);
      EXPECT_EQ(Saved(*cache, parent), Saved(*cache, parent_alone));
      EXPECT_EQ(Saved(*cache, *child), Saved(*cache, child_alone));
    }
  }
}

TEST(KvCacheSteps, AForkedPrefixIsPackedAndShared) {
  const auto cache = Make(MixedConfig(32, 4, 20));
  const int64_t parent = *cache->AddSequence();
  AppendTokens(*cache, parent, 3, 0, 150);
  const int64_t free = cache->FreePages();
  const auto child = cache->ForkSequence(parent, 96);
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_EQ(*cache->Length(*child, 1), 96);
  EXPECT_EQ(cache->FreePages(), free);
  const auto first_tokens = [](const Values& from, int64_t tokens) {
    std::vector<float> out;
    for (int head = 0; head < kHeads; ++head) {
      const auto begin = from.data.begin() + head * from.tokens * kDim;
      out.insert(out.end(), begin, begin + tokens * kDim);
    }
    return out;
  };
  for (int layer = 0; layer < kLayers; ++layer) {
    const Gathered of_parent = GatherAll(*cache, parent, layer);
    const Gathered of_child = GatherAll(*cache, *child, layer);
    EXPECT_EQ(of_child.keys.data, first_tokens(of_parent.keys, 96));
    EXPECT_EQ(of_child.values.data, first_tokens(of_parent.values, 96));
  }
  // It goes on: what comes behind the prefix is in the window, and leaves it.
  AppendTokens(*cache, *child, 9, 0, 100);
  ASSERT_EQ(*cache->Length(*child, 0), 196);
  EXPECT_EQ(cache->FreePages(), free - 3);  // positions 96 to 175
  AppendTokens(*cache, parent, 3, 150, 10);
  EXPECT_EQ(*cache->Length(parent, 0), 160);

  const auto refused = [&](int64_t tokens) {
    const auto fork = cache->ForkSequence(parent, tokens);
    EXPECT_EQ(fork.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(fork.status().message()),
                AllOf(HasSubstr(absl::StrCat("first ", tokens, " tokens")),
                      HasSubstr("multiples of 32 from 4 to 128")));
  };
  for (int64_t tokens : {-32, 0, 31, 33, 159, 161, 1000}) refused(tokens);
}

// What a group of the first layer holds of a sequence, in order.
std::vector<float> Prefix(const Values& all, int64_t tokens) {
  std::vector<float> out;
  for (int head = 0; head < kHeads; ++head) {
    const auto begin = all.data.begin() + head * all.tokens * kDim;
    out.insert(out.end(), begin, begin + tokens * kDim);
  }
  return out;
}

TEST(KvCacheSteps, ATruncatedSequenceKeepsItsOlderTokensAsTheyWere) {
  for (int window : {0, 20, 33}) {
    for (int length : {3, 24, 70, 96, 201}) {
      const auto cache = Make(MixedConfig(32, 4, window));
      const int packed = std::max(0, length - window);
      for (int tokens : {packed, (packed + length) / 2, length}) {
        SCOPED_TRACE(absl::StrCat("window ", window, ", ", length, " to ",
                                  tokens, " tokens"));
        const int64_t id = *cache->AddSequence();
        AppendTokens(*cache, id, 3, 0, length);
        const int64_t twin = *cache->ForkSequence(id, length);
        const std::vector<uint8_t> whole = Saved(*cache, twin);
        const Gathered before = GatherAll(*cache, id, 1);
        const absl::Status status = cache->TruncateSequence(id, tokens);
        ASSERT_TRUE(status.ok()) << status;
        ASSERT_EQ(*cache->Length(id, 1), tokens);
        const Gathered after = GatherAll(*cache, id, 1);
        EXPECT_EQ(after.keys.data, Prefix(before.keys, tokens));
        EXPECT_EQ(after.values.data, Prefix(before.values, tokens));

        // It can be saved, loaded and forked, and the same tokens again make
        // it, once the window is full of them, what it would have been.
        const std::vector<uint8_t> saved = Saved(*cache, id);
        const auto loaded = cache->LoadSequence(saved);
        ASSERT_TRUE(loaded.ok()) << loaded.status();
        EXPECT_EQ(Saved(*cache, *loaded), saved);
        const int64_t fork = *cache->ForkSequence(id, tokens);
        for (int64_t each : {id, *loaded, fork}) {
          for (int64_t t = tokens; t < length + 40; t += 9) {
            AppendTokens(*cache, each, 3, t,
                         std::min<int64_t>(9, length + 40 - t));
          }
        }
        EXPECT_EQ(Saved(*cache, twin), whole);
        AppendTokens(*cache, twin, 3, length, 40);
        const Gathered want = GatherAll(*cache, twin, 1);
        for (int64_t each : {id, *loaded, fork}) {
          const Gathered got = GatherAll(*cache, each, 1);
          EXPECT_EQ(got.keys.data, want.keys.data);
          EXPECT_EQ(got.values.data, want.values.data);
        }
        for (int64_t each : {id, *loaded, fork, twin}) {
          ASSERT_TRUE(cache->RemoveSequence(each).ok());
        }
      }
    }
  }
}

TEST(KvCacheSteps, DraftsTakenBackAgainAndAgainLeaveNoTrace) {
  const auto cache = Make(MixedConfig(32, 4, 20));
  const int64_t id = *cache->AddSequence(), plain = *cache->AddSequence();
  AppendTokens(*cache, id, 3, 0, 40);
  AppendTokens(*cache, plain, 3, 0, 40);
  for (int64_t t = 40; t < 120; ++t) {
    AppendTokens(*cache, id, 9, t, 7);  // a draft, all of it wrong
    ASSERT_TRUE(cache->TruncateSequence(id, t).ok());
    AppendTokens(*cache, id, 3, t, 1);
    AppendTokens(*cache, plain, 3, t, 1);
  }
  AppendTokens(*cache, id, 3, 120, 7);
  AppendTokens(*cache, plain, 3, 120, 7);
  EXPECT_EQ(*cache->AllocatedBytes(id), *cache->AllocatedBytes(plain));
  for (int layer = 0; layer < kLayers; ++layer) {
    const Gathered got = GatherAll(*cache, id, layer);
    const Gathered want = GatherAll(*cache, plain, layer);
    EXPECT_EQ(got.keys.data, want.keys.data);
    EXPECT_EQ(got.values.data, want.values.data);
  }
}

TEST(KvCacheSteps, WhatCantBeTruncatedIsRefusedAndStays) {
  const auto cache = Make(MixedConfig(32, 4, 20));
  const int64_t id = *cache->AddSequence();
  AppendTokens(*cache, id, 3, 0, 150);
  const std::vector<uint8_t> before = Saved(*cache, id);
  for (int64_t tokens : {-1, 0, 129, 151}) {
    const absl::Status status = cache->TruncateSequence(id, tokens);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr(absl::StrCat("to ", tokens, " tokens")),
                      HasSubstr("supported are 130 to 150")));
  }
  EXPECT_EQ(cache->TruncateSequence(id + 1, 1).code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(Saved(*cache, id), before);
  // A step that was prepared before is refused.
  const auto batch = cache->MakeBatch(1, 4);
  ASSERT_TRUE(cache->Prepare({{id, 1}}, **batch).ok());
  ASSERT_TRUE(cache->TruncateSequence(id, 140).ok());
  const Values one = RandomValues(1, 1);
  EXPECT_EQ(cache->Append(**batch, 0, Slice(one, 0), Slice(one, 0)).code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(cache->Append(id, 1, 1, Slice(one, 0), Slice(one, 0)).ok());
  EXPECT_EQ(cache->TruncateSequence(id, 140).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(KvCacheSteps, ForksAndStepsNeedLayersOfOneLength) {
  const auto cache = Make(MixedConfig(32, 4, 20));
  const int64_t id = *cache->AddSequence();
  const Values v = RandomValues(3, 1);
  ASSERT_TRUE(cache->Append(id, 1, 3, Slice(v, 0), Slice(v, 0)).ok());
  const auto failed = absl::StatusCode::kFailedPrecondition;
  EXPECT_EQ(cache->ForkSequence(id, 3).status().code(), failed);
  EXPECT_EQ(cache->SavedBytes(id).status().code(), failed);
  const auto batch = cache->MakeBatch(1, 4);
  const absl::Status status = cache->Prepare({{id, 1}}, **batch);
  EXPECT_EQ(status.code(), failed);
  EXPECT_THAT(std::string(status.message()), HasSubstr("0 to 3 tokens"));
}

TEST(KvCacheSteps, ASavedSequenceGoesOnInAnotherCache) {
  const KvCacheConfig config = MixedConfig(32, 4, 20);
  const auto cache = Make(config), other = Make(config);
  for (int64_t length : {0, 2, 30, 150}) {
    const int64_t id = *cache->AddSequence();
    AppendTokens(*cache, id, 3, 0, length);
    const std::vector<uint8_t> saved = Saved(*cache, id);
    const auto loaded = other->LoadSequence(saved);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(Saved(*other, *loaded), saved);
    AppendTokens(*cache, id, 3, length, 60);
    AppendTokens(*other, *loaded, 3, length, 60);
    EXPECT_EQ(Saved(*other, *loaded), Saved(*cache, id));
  }
}

TEST(KvCacheSteps, WhatIsntASavedSequenceOfThisFormatIsRefused) {
  const KvCacheConfig config = MixedConfig(32, 4, 20);
  const auto cache = Make(config);
  const int64_t id = *cache->AddSequence();
  AppendTokens(*cache, id, 3, 0, 100);
  const std::vector<uint8_t> good = Saved(*cache, id);
  const int64_t free = cache->FreePages();
  const auto refused = [&](KvCache& to, const std::vector<uint8_t>& saved,
                           const std::string& text) {
    const auto loaded = to.LoadSequence(saved);
    EXPECT_EQ(loaded.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(loaded.status().message()), HasSubstr(text));
    EXPECT_EQ(cache->FreePages(), free);
  };
  refused(*cache, {}, "0 bytes that are not a saved sequence");
  std::vector<uint8_t> bad = good;
  bad[0] = 'X';
  refused(*cache, bad, "not a saved sequence");
  bad = good;
  bad[4] = 9;
  refused(*cache, bad, "format version 9; supported is version 1");
  bad = good;
  bad.pop_back();
  refused(*cache, bad, "of which there are");
  for (int at : {72, 73, 79, 80, 87}) {  // length and packed floor
    bad = good;
    bad[at] ^= 0x81;
    refused(*cache, bad, "a saved sequence of");
  }
  KvCacheConfig wider = config;
  wider.groups[2].width = 5;
  refused(*Make(wider), good, FormatDigest(config));
  EXPECT_EQ(cache->LoadSequence(good).ok(), true);
}

TEST(KvCacheSteps, PagesGoOutAndIn) {
  const auto cache = Make(MixedConfig(32, 4, 20));
  const int64_t id = *cache->AddSequence(), empty = *cache->AddSequence();
  AppendTokens(*cache, id, 3, 0, 150);
  AppendTokens(*cache, empty, 4, 0, 150);
  for (int layer = 0; layer < kLayers; ++layer) {
    std::vector<uint8_t> pages(2 * cache->layout().layers[layer].page_bytes);
    ASSERT_TRUE(
        cache->CopyPagesOut(id, layer, 1, 2, absl::MakeSpan(pages)).ok());
    ASSERT_TRUE(cache->CopyPagesIn(empty, layer, 1, 2, pages).ok());
    for (int group = 0; group < kHeads * 2; ++group) {
      for (int page : {1, 2}) {
        EXPECT_EQ(*cache->Section(empty, layer, group, page),
                  *cache->Section(id, layer, group, page));
      }
      EXPECT_NE(*cache->Section(empty, layer, group, 0),
                *cache->Section(id, layer, group, 0));
    }
    EXPECT_EQ(
        cache->CopyPagesOut(id, layer, 4, 2, absl::MakeSpan(pages)).code(),
        absl::StatusCode::kOutOfRange);
    EXPECT_EQ(
        cache->CopyPagesOut(id, layer, 0, 1, absl::MakeSpan(pages)).code(),
        absl::StatusCode::kInvalidArgument);
  }
  ASSERT_TRUE(cache->ForkSequence(id, 150).ok());
  std::vector<uint8_t> page(cache->layout().layers[0].page_bytes);
  EXPECT_EQ(cache->CopyPagesIn(id, 0, 0, 1, page).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(KvCacheSteps, AStepIsAppendedOnceALayer) {
  const auto cache = Make(MixedConfig(32, 4, 20));
  const int64_t id = *cache->AddSequence();
  const auto batch = cache->MakeBatch(2, 4);
  ASSERT_TRUE(batch.ok());
  const Values v = RandomValues(4, 1);
  const auto invalid = absl::StatusCode::kInvalidArgument;
  const auto failed = absl::StatusCode::kFailedPrecondition;
  EXPECT_EQ(cache->Append(**batch, 0, Slice(v, 0), Slice(v, 0)).code(), failed);
  EXPECT_EQ(cache->Prepare({}, **batch).code(), invalid);
  EXPECT_EQ(cache->Prepare({{id, 0}}, **batch).code(), invalid);
  EXPECT_EQ(cache->Prepare({{id, 5}}, **batch).code(), invalid);
  EXPECT_EQ(cache->Prepare({{id + 1, 1}}, **batch).code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(cache->Prepare({{id, 1}, {id, 1}}, **batch).code(), failed);
  EXPECT_EQ(Make(MixedConfig(32, 4, 20))->Prepare({{1, 1}}, **batch).code(),
            invalid);
  ASSERT_TRUE(cache->Prepare({{id, 4}}, **batch).ok());
  EXPECT_EQ(cache->Append(**batch, kLayers, Slice(v, 0), Slice(v, 0)).code(),
            invalid);
  EXPECT_EQ(cache->Append(**batch, 0, {}, Slice(v, 0)).code(), invalid);
  Values bad = v;
  bad.data[(1 * 4 + 2) * kDim + 9] = NAN;
  const absl::Status nan =
      cache->Append(**batch, 0, Slice(v, 0), Slice(bad, 0));
  EXPECT_EQ(nan.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(nan.message()),
              HasSubstr(absl::StrCat("sequence ", id,
                                     ", layer 0, head 1, V, "
                                     "token 2, channel 9: nan")));
  EXPECT_EQ(*cache->Length(id, 0), 0);
  EXPECT_TRUE(cache->Append(**batch, 0, Slice(v, 0), Slice(v, 0)).ok());
  EXPECT_EQ(cache->Append(**batch, 0, Slice(v, 0), Slice(v, 0)).code(), failed);
  EXPECT_EQ(*cache->Length(id, 0), 4);
  EXPECT_TRUE(cache->MarkAppended(**batch).ok());
  EXPECT_EQ(*cache->Length(id, 1), 4);
  for (int limit : {0, -1, 33}) {
    EXPECT_EQ(cache->MakeBatch(limit, 1).status().code(), invalid);
  }
}

TEST(KvCacheSteps, AStepOfARemovedSequenceTouchesNoOther) {
  const auto cache = Make(MixedConfig(32, 4, 20));
  const int64_t id = *cache->AddSequence();
  const auto batch = cache->MakeBatch(1, 64);
  ASSERT_TRUE(batch.ok());
  ASSERT_TRUE(cache->Prepare({{id, 64}}, **batch).ok());
  ASSERT_TRUE(cache->RemoveSequence(id).ok());
  // It gets the slot and the pages that the removed one had.
  const int64_t next = *cache->AddSequence();
  AppendTokens(*cache, next, 3, 0, 64);
  const std::vector<uint8_t> before = Saved(*cache, next);
  const Values v = RandomValues(64, 1);
  const auto gone = absl::StatusCode::kNotFound;
  EXPECT_EQ(cache->Append(**batch, 0, Slice(v, 0), Slice(v, 0)).code(), gone);
  EXPECT_EQ(cache->MarkAppended(**batch).code(), gone);
  EXPECT_EQ(Saved(*cache, next), before);
}

TEST(KvCacheSteps, AForkBetweenPreparingAndAppendingIsFoundOut) {
  const auto cache = Make(MixedConfig(32, 4, 20));
  const int64_t id = *cache->AddSequence();
  AppendTokens(*cache, id, 3, 0, 60);  // the second page is half full
  const auto batch = cache->MakeBatch(1, 64);
  ASSERT_TRUE(batch.ok());
  ASSERT_TRUE(cache->Prepare({{id, 40}}, **batch).ok());
  const int64_t child = *cache->ForkSequence(id, 60);
  const std::vector<uint8_t> before = Saved(*cache, child);
  const Values v = RandomValues(40, 1);
  const absl::Status status =
      cache->Append(**batch, 0, Slice(v, 0), Slice(v, 0));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("prepare it again"));
  ASSERT_TRUE(cache->Prepare({{id, 40}}, **batch).ok());
  for (int layer = 0; layer < kLayers; ++layer) {
    ASSERT_TRUE(cache->Append(**batch, layer, Slice(v, 0), Slice(v, 0)).ok());
  }
  EXPECT_EQ(Saved(*cache, child), before);
  for (int64_t sequence : {id, child}) {
    ASSERT_TRUE(cache->RemoveSequence(sequence).ok());
  }
  EXPECT_EQ(cache->FreePages(), 1000);
}

TEST(KvCacheSteps, DigestsTellFormatsApart) {
  const KvCacheConfig config = MixedConfig(32, 4, 20);
  const std::string digest = FormatDigest(config);
  EXPECT_EQ(digest.size(), 64u);
  KvCacheConfig same = config;
  same.geometry.query_heads = 2 * kHeads;
  EXPECT_EQ(FormatDigest(same), digest);
  std::vector<KvCacheConfig> others(6, config);
  others[0].groups[1].width = 3;
  others[1].groups[5].quantizer.seed = 8;
  others[2].page_tokens = 64;
  others[3].sink_tokens = 5;
  others[4].window = 21;
  std::swap(others[5].groups[0], others[5].groups[1]);
  for (const KvCacheConfig& other : others) {
    EXPECT_NE(FormatDigest(other), digest);
  }
}

TEST(ScopedUse, ReadersShareAndWritersDont) {
  SequenceState state;
  {
    const ScopedUse a(&state, ScopedUse::Kind::kRead);
    const ScopedUse b(&state, ScopedUse::Kind::kRead);
    EXPECT_TRUE(a && b);
    EXPECT_FALSE(ScopedUse(&state, ScopedUse::Kind::kWrite));
  }
  {
    const ScopedUse writer(&state, ScopedUse::Kind::kWrite);
    EXPECT_TRUE(writer);
    EXPECT_FALSE(ScopedUse(&state, ScopedUse::Kind::kRead));
    EXPECT_FALSE(ScopedUse(&state, ScopedUse::Kind::kWrite));
  }
  EXPECT_TRUE(ScopedUse(&state, ScopedUse::Kind::kWrite));
}

// Does something else, once, in the middle of a call.
class HeldLoops final : public LoopRunner {
 public:
  explicit HeldLoops(std::function<void()> inside) : inside_(inside) {}
  int concurrency() const override { return 1; }
  void Run(int count, absl::FunctionRef<void(int)> iteration) override {
    if (inside_) std::exchange(inside_, nullptr)();
    for (int i = 0; i < count; ++i) iteration(i);
  }

 private:
  std::function<void()> inside_;
};

TEST(KvCacheSteps, TwoCallsOnOneSequenceAreFoundOut) {
  const auto cache = Make(MixedConfig(32, 4, 20));
  const int64_t id = *cache->AddSequence(), other = *cache->AddSequence();
  const Values v = RandomValues(3, 1);
  absl::Status inside, elsewhere;
  HeldLoops loops([&] {
    std::thread([&] {
      inside = cache->Append(id, 1, 3, Slice(v, 0), Slice(v, 0));
      elsewhere = cache->Append(other, 1, 3, Slice(v, 0), Slice(v, 0));
    }).join();
  });
  ASSERT_TRUE(
      cache->Append(id, 0, 3, Slice(v, 0), Slice(v, 0), {.loops = &loops})
          .ok());
  EXPECT_EQ(inside.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(inside.message()), HasSubstr("in use by another"));
  EXPECT_EQ(*cache->Length(id, 1), 0);
  EXPECT_EQ(*cache->Length(other, 1), 3);
}

}  // namespace
}  // namespace ratequant::kv
