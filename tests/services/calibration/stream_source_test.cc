#include "services/calibration/stream_source.h"

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/status.h"
#include "tests/services/calibration/test_capture.h"

namespace ratequant::calibration {
namespace {

using ::testing::HasSubstr;
using Chunks = std::vector<v1::CalibrateChunk>;

ChunkReader ReaderOf(Chunks chunks) {
  return [chunks = std::move(chunks), next = size_t{0}]() mutable
         -> absl::StatusOr<absl::optional<v1::CalibrateChunk>> {
    if (next == chunks.size()) return absl::optional<v1::CalibrateChunk>();
    return absl::make_optional(chunks[next++]);
  };
}

// Reads a whole stream; checks that every layer has the capture's bytes.
absl::Status Drain(Chunks chunks, TestCapture* expected = nullptr) {
  ChunkReader reader = ReaderOf(std::move(chunks));
  auto header = ReadHeader(reader);
  if (!header.ok()) return header.status();
  auto plan = MakePlan(header->model(), header->options(), "header.");
  if (!plan.ok()) return plan.status();
  StreamSource source(*plan, *header, reader);
  auto shape = source.Open();
  if (!shape.ok()) return shape.status();
  for (uint32_t count = 0;; ++count) {
    auto layer = source.Next();
    if (!layer.ok()) return layer.status();
    if (!layer->has_value()) {
      EXPECT_EQ(count, TestCapture::kSequences * TestCapture::kLayers);
      return absl::OkStatus();
    }
    if (expected == nullptr) continue;
    const void* tensors[] = {(*layer)->key, (*layer)->value,
                             (*layer)->key_gradient, (*layer)->value_gradient};
    for (int kind = 0; kind < 4; ++kind) {
      EXPECT_EQ(
          0, memcmp(tensors[kind],
                    expected->Tensor((*layer)->sequence, (*layer)->layer, kind),
                    TestCapture::kTensorBytes));
    }
  }
}

void ExpectRefused(const Chunks& chunks, const std::string& reason,
                   const std::string& text) {
  const absl::Status status = Drain(chunks);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_EQ(ErrorReason(status), reason) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(text));
}

class StreamSourceTest : public testing::Test {
 protected:
  // Pieces per tensor with whole tensors in one chunk: 1.
  Chunks Whole() { return capture_.Chunks("models/m", 1 << 20); }
  Chunks Cut() { return capture_.Chunks("models/m", 5000); }

  TestCapture capture_;
};

TEST_F(StreamSourceTest, DeliversEveryLayerHoweverItIsCut) {
  for (size_t piece : {size_t{1000}, size_t{4096}, size_t{1} << 20}) {
    EXPECT_TRUE(Drain(capture_.Chunks("models/m", piece), &capture_).ok());
  }
}

TEST_F(StreamSourceTest, NeedsAHeaderFirst) {
  ExpectRefused({}, "HEADER_MISSING", "ended before its header");
  Chunks chunks = Whole();
  chunks.erase(chunks.begin());
  ExpectRefused(chunks, "HEADER_MISSING", "isn't the header");
}

TEST_F(StreamSourceTest, RefusesASecondHeaderAndAnEmptyMessage) {
  Chunks chunks = Whole();
  chunks.insert(chunks.begin() + 3, chunks[0]);
  ExpectRefused(chunks, "CHUNK_OUT_OF_ORDER", "carries no tensor");
  chunks[3].Clear();
  ExpectRefused(chunks, "CHUNK_OUT_OF_ORDER", "carries no tensor");
}

TEST_F(StreamSourceTest, RefusesTensorsInAnotherOrder) {
  Chunks chunks = Whole();
  std::swap(chunks[1], chunks[2]);
  ExpectRefused(chunks, "CHUNK_OUT_OF_ORDER",
                "expected KEY of layer 2, sequence 0, got VALUE");
}

TEST_F(StreamSourceTest, RefusesAGapAndARepetition) {
  Chunks chunks = Cut();
  chunks.erase(chunks.begin() + 2);
  ExpectRefused(chunks, "CHUNK_OUT_OF_ORDER",
                "expected offset 5000, got 10000");
  chunks = Cut();
  chunks.insert(chunks.begin() + 2, chunks[1]);
  ExpectRefused(chunks, "CHUNK_OUT_OF_ORDER", "expected offset 5000, got 0");
}

TEST_F(StreamSourceTest, RefusesALayerTwice) {
  Chunks chunks = Whole();
  chunks.insert(chunks.begin() + 5, chunks.begin() + 1, chunks.begin() + 5);
  ExpectRefused(chunks, "CHUNK_OUT_OF_ORDER",
                "layer 2 of sequence 0 for the second time");
}

TEST_F(StreamSourceTest, RefusesASequenceBeforeItsTurn) {
  Chunks chunks = Whole();
  chunks[1].mutable_tensor()->set_sequence(1);
  ExpectRefused(chunks, "CHUNK_OUT_OF_ORDER", "while sequence 0 has 0 of 3");
}

TEST_F(StreamSourceTest, RefusesLayersAndSequencesThatDoNotExist) {
  Chunks chunks = Whole();
  chunks[1].mutable_tensor()->set_layer(3);
  ExpectRefused(chunks, "WRONG_SHAPE", "layer 3 of 3");
  chunks = Whole();
  chunks.push_back(chunks[1]);
  chunks.back().mutable_tensor()->set_sequence(2);
  ExpectRefused(chunks, "WRONG_SHAPE", "sequence 2 of 2");
}

TEST_F(StreamSourceTest, RefusesTensorsOfAnotherSize) {
  Chunks chunks = Whole();
  chunks[1].mutable_tensor()->mutable_data()->append("abcd");
  ExpectRefused(chunks, "WRONG_SHAPE", "16388 bytes at offset 0");
  chunks = Whole();
  chunks[1].mutable_tensor()->mutable_data()->resize(16000);
  ExpectRefused(chunks, "WRONG_SHAPE",
                "begins after 16000 of 16384 bytes of KEY");
  chunks = Whole();
  chunks[1].mutable_tensor()->clear_data();
  ExpectRefused(chunks, "WRONG_SHAPE", "0 bytes at offset 0");
  chunks = Whole();
  chunks[1].mutable_tensor()->set_offset(~uint64_t{0});
  ExpectRefused(chunks, "WRONG_SHAPE", "of a tensor of 16384 bytes");
}

TEST_F(StreamSourceTest, RefusesAStreamThatEndsEarly) {
  Chunks chunks = Cut();
  chunks.resize(3);
  ExpectRefused(chunks, "STREAM_INCOMPLETE",
                "10000 of 16384 bytes into KEY of layer 2, sequence 0");
  chunks = Whole();
  chunks.resize(1 + 4 * TestCapture::kLayers);
  ExpectRefused(chunks, "STREAM_INCOMPLETE", "in sequence 1 of 2");
  chunks.resize(1);
  ExpectRefused(chunks, "STREAM_INCOMPLETE", "in sequence 0 of 2");
}

TEST_F(StreamSourceTest, RefusesAHeaderThatMakesNoSense) {
  const auto with = [this](auto change) {
    Chunks chunks = Whole();
    change(chunks[0].mutable_header());
    return chunks;
  };
  using Header = v1::CalibrateHeader*;
  ExpectRefused(with([](Header h) { h->set_model("qwen"); }),
                "INVALID_MODEL_ID", "'qwen' is not models/{model}");
  ExpectRefused(with([](Header h) { h->set_dtype("int8"); }),
                "INVALID_ARGUMENT", "'int8'; use float32");
  ExpectRefused(with([](Header h) { h->clear_geometry(); }),
                "UNSUPPORTED_SHAPE", "0 layers");
  ExpectRefused(
      with([](Header h) { h->mutable_geometry()->set_query_heads(3); }),
      "UNSUPPORTED_SHAPE", "3 query heads");
  ExpectRefused(
      with([](Header h) { h->mutable_geometry()->set_kv_heads(1 << 30); }),
      "UNSUPPORTED_SHAPE", "1073741824 KV heads");
  ExpectRefused(
      with([](Header h) { h->mutable_options()->set_sequence_length(65); }),
      "UNSUPPORTED_SHAPE", "65 tokens; must be a multiple of 32");
  ExpectRefused(
      with([](Header h) { h->mutable_options()->set_page_tokens(48); }),
      "UNSUPPORTED_SHAPE", "48 tokens in a page; use 16, 32, 64 or 128");
  const auto add_kivi64 = [](Header h) {
    v1::Quantizer* kivi = h->mutable_options()->add_quantizers();
    kivi->set_kind(v1::Quantizer::KIVI);
    kivi->set_group_size(64);
  };
  ExpectRefused(with(add_kivi64), "UNSUPPORTED_QUANTIZER",
                "header.options.quantizers[0]: kivi:group_size=64 doesn't fit "
                "into pages of 32 tokens; use page_tokens of at least 64");
  ExpectRefused(with([&](Header h) {
                  add_kivi64(h);
                  h->mutable_options()->set_page_tokens(64);
                  h->mutable_options()->set_sequence_length(96);
                }),
                "UNSUPPORTED_SHAPE", "96 tokens; must be a multiple of 64");
  ExpectRefused(
      with([](Header h) { h->mutable_options()->set_sink_tokens(64); }),
      "UNSUPPORTED_SHAPE", "64 sinks leave nothing");
  ExpectRefused(
      with([](Header h) { h->mutable_options()->set_sequences(4097); }),
      "UNSUPPORTED_SHAPE", "4097 sequences; at most 4096");
  ExpectRefused(
      with([](Header h) { h->mutable_capture()->set_token_digest("x"); }),
      "INVALID_ARGUMENT", "header.capture.token_digest");
  ExpectRefused(with([](Header h) { h->mutable_capture()->set_mean_nll(-1); }),
                "INVALID_ARGUMENT", "-1 is no loss");
}

// The same capture with Q and the output's gradient: twice the layer's K, and
// twice its V.
Chunks WithAttention(TestCapture& capture) {
  Chunks chunks;
  for (const v1::CalibrateChunk& chunk : capture.Chunks("models/m", 1 << 20)) {
    chunks.push_back(chunk);
    if (chunk.has_header()) {
      v1::CalibrateHeader& header = *chunks.back().mutable_header();
      header.mutable_options()->set_attention_output(true);
      for (uint32_t layer = 0; layer < TestCapture::kLayers; ++layer) {
        header.add_attention()->set_softmax_scale(0.25 * (1 + layer));
      }
    } else if (chunk.tensor().kind() == v1::TensorChunk::VALUE_GRADIENT) {
      for (const int kind : {0, 1}) {
        const std::string half(
            reinterpret_cast<const char*>(capture.Tensor(
                chunk.tensor().sequence(), chunk.tensor().layer(), kind)),
            TestCapture::kTensorBytes);
        v1::CalibrateChunk more = chunk;
        more.mutable_tensor()->set_kind(kind == 0
                                            ? v1::TensorChunk::QUERY
                                            : v1::TensorChunk::OUTPUT_GRADIENT);
        more.mutable_tensor()->set_data(half);
        chunks.push_back(more);
        more.mutable_tensor()->set_offset(half.size());
        chunks.push_back(more);
      }
    }
  }
  return chunks;
}

TEST_F(StreamSourceTest,
       DeliversQueriesAndOutputGradientsWhereTheyAreAskedFor) {
  ChunkReader reader = ReaderOf(WithAttention(capture_));
  const auto header = ReadHeader(reader);
  const auto plan = MakePlan(header->model(), header->options(), "header.");
  ASSERT_TRUE(plan.ok()) << plan.status();
  StreamSource source(*plan, *header, reader);
  ASSERT_TRUE(source.Open().ok());
  for (uint32_t i = 0; i < TestCapture::kSequences * TestCapture::kLayers;
       ++i) {
    const auto next = source.Next();
    ASSERT_TRUE(next.ok() && next->has_value()) << next.status();
    const CapturedLayer& layer = **next;
    EXPECT_EQ(layer.attention.query_heads, 4);
    EXPECT_EQ(layer.attention.softmax_scale, 0.25f * (1 + layer.layer));
    const void* const tensors[] = {layer.query, layer.output_gradient};
    for (const int kind : {0, 1}) {
      const float* half = capture_.Tensor(layer.sequence, layer.layer, kind);
      for (const size_t at : {size_t{0}, TestCapture::kTensorBytes}) {
        EXPECT_EQ(0, memcmp(static_cast<const char*>(tensors[kind]) + at, half,
                            TestCapture::kTensorBytes));
      }
    }
  }
  EXPECT_FALSE(source.Next()->has_value());
}

TEST_F(StreamSourceTest, AttentionMustBeWhole) {
  Chunks chunks = WithAttention(capture_);
  chunks[0].mutable_header()->mutable_attention()->RemoveLast();
  ExpectRefused(chunks, "INVALID_ARGUMENT", "has 2 entries; needs 3");
  chunks = WithAttention(capture_);
  chunks[0].mutable_header()->mutable_attention(1)->set_softmax_scale(0);
  ExpectRefused(chunks, "INVALID_ARGUMENT", "softmax_scale 0; must be finite");
  chunks = Whole();
  chunks[0].mutable_header()->add_attention()->set_softmax_scale(1);
  ExpectRefused(chunks, "INVALID_ARGUMENT",
                "needs 0 without options.attention_output");
  chunks = Whole();
  chunks[0].mutable_header()->mutable_options()->set_attention_output(true);
  for (int i = 0; i < 3; ++i) {
    chunks[0].mutable_header()->add_attention()->set_softmax_scale(1);
  }
  ExpectRefused(chunks, "CHUNK_OUT_OF_ORDER", "expected QUERY of layer 2");
  chunks = WithAttention(capture_);
  chunks[6].mutable_tensor()->set_offset(2 * TestCapture::kTensorBytes);
  ExpectRefused(chunks, "WRONG_SHAPE", "of a tensor of 32768 bytes");
}

TEST_F(StreamSourceTest, AttentionOutputNeedsMoreThanSinksAndWindow) {
  Chunks chunks = WithAttention(capture_);
  v1::CalibrateOptions& options =
      *chunks[0].mutable_header()->mutable_options();
  options.set_sequence_length(32);
  ExpectRefused(chunks, "UNSUPPORTED_SHAPE",
                "above the 36 tokens of sinks and window; these have 32");
  options.set_sequence_length(64);
  options.set_subtract_means(true);
  ExpectRefused(chunks, "INVALID_ARGUMENT", "subtract_means");
}

}  // namespace
}  // namespace ratequant::calibration
