#include "ratequant/kv/kv_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "ratequant/kv/bit_width.h"

namespace ratequant::kv {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct SectionCase {
  const char* quantizer;
  int width;
  int head_dim;
  int page_tokens;
  size_t key_params;
  size_t value_params;
  size_t row;
  size_t key_section;
  size_t value_section;
};

class SectionBytes : public ::testing::TestWithParam<SectionCase> {};

// Worked out by hand from kernels/FORMAT.md: parameters, padded to 16, then
// head_dim * width / 8 bytes a token, padded to 16.
TEST_P(SectionBytes, ToTheByte) {
  const SectionCase& c = GetParam();
  const absl::StatusOr<QuantizerSpec> spec = ParseQuantizer(c.quantizer);
  ASSERT_TRUE(spec.ok()) << spec.status();
  KvCacheConfig config;
  config.geometry = {1, 1, c.head_dim};
  config.groups = {{*spec, c.width}, {*spec, c.width}};
  config.page_tokens = c.page_tokens;
  const absl::StatusOr<KvLayout> layout = ComputeKvLayout(config);
  ASSERT_TRUE(layout.ok()) << layout.status();
  const LayerLayout& layer = layout->layers[0];
  EXPECT_EQ(layer.section[0].params_bytes, c.key_params);
  EXPECT_EQ(layer.section[1].params_bytes, c.value_params);
  EXPECT_EQ(layer.section[0].row_bytes, c.row);
  EXPECT_EQ(layer.section[1].row_bytes, c.row);
  EXPECT_EQ(layer.section[0].section_bytes, c.key_section);
  EXPECT_EQ(layer.section[1].section_bytes, c.value_section);
  EXPECT_THAT(layer.section_offset, ElementsAre(0, c.key_section));
  EXPECT_EQ(layer.page_bytes, c.key_section + c.value_section);
  EXPECT_EQ(layout->page_bytes(), layer.page_bytes);
}

INSTANTIATE_TEST_SUITE_P(
    Quantizers, SectionBytes,
    ::testing::Values(
        // rtn: one fp16 scale a token
        SectionCase{"rtn", 4, 64, 32, 64, 64, 32, 1088, 1088},
        SectionCase{"rtn", 3, 64, 16, 32, 32, 24, 416, 416},
        SectionCase{"rtn", 1, 8, 16, 32, 32, 1, 48, 48},
        // kivi: K a scale and a zero per channel and 32 tokens, V per token and
        // 32 channels
        SectionCase{"kivi", 2, 64, 32, 256, 256, 16, 768, 768},
        SectionCase{"kivi", 3, 128, 64, 1024, 1024, 48, 4096, 4096},
        SectionCase{"kivi:group_size=16", 5, 64, 16, 256, 256, 40, 896, 896},
        SectionCase{"kivi:group_size=64", 8, 128, 64, 512, 512, 128, 8704,
                    8704},
        // quarot: a scale and a zero a token
        SectionCase{"quarot", 2, 64, 32, 128, 128, 16, 640, 640},
        SectionCase{"quarot:seed=9", 7, 128, 128, 512, 512, 112, 14848, 14848},
        // turboquant: one fp16 scale a token
        SectionCase{"turboquant", 3, 64, 32, 64, 64, 24, 832, 832},
        SectionCase{"turboquant", 1, 128, 16, 32, 32, 16, 288, 288},
        // fp16 has no parameters, whatever the quantizer
        SectionCase{"kivi", 16, 64, 32, 0, 0, 128, 4096, 4096},
        SectionCase{"turboquant", 16, 8, 16, 0, 0, 16, 256, 256}),
    [](const auto& info) {
      std::string name = info.param.quantizer;
      for (char& c : name) {
        if (c == ':' || c == '=') c = '_';
      }
      return name + "_" + std::to_string(info.param.width) + "bits_d" +
             std::to_string(info.param.head_dim) + "_p" +
             std::to_string(info.param.page_tokens);
    });

KvCacheConfig Uniform(int layers, int heads, int width) {
  KvCacheConfig config;
  config.geometry = {layers, heads, 64};
  config.groups.assign(layers * heads * 2, {QuantizerSpec{}, width});
  return config;
}

TEST(KvLayout, SectionsLieOneBehindTheOtherHeadByHeadKBeforeV) {
  KvCacheConfig config = Uniform(2, 2, 2);
  config.groups[4].width = 8;           // layer 1, head 0, K
  config.groups[7].width = kFp16Width;  // layer 1, head 1, V
  const absl::StatusOr<KvLayout> layout = ComputeKvLayout(config);
  ASSERT_TRUE(layout.ok()) << layout.status();
  ASSERT_EQ(layout->layers.size(), 2u);
  EXPECT_THAT(layout->layers[0].section_offset,
              ElementsAre(0, 768, 1536, 2304));
  EXPECT_EQ(layout->layers[0].page_bytes, 3072u);
  EXPECT_THAT(layout->layers[1].section_offset,
              ElementsAre(0, 2304, 3072, 3840));
  EXPECT_EQ(layout->layers[1].page_bytes, 7936u);
  EXPECT_EQ(layout->page_bytes(), 11008u);
}

TEST(KvLayout, PackedTokensAreWholeBlocksThatLeftTheWindow) {
  KvCacheConfig config = Uniform(1, 1, 4);
  config.window = 32;
  EXPECT_EQ(PackedTokens(config, 0, 1), 0);
  EXPECT_EQ(PackedTokens(config, 32, 1), 0);
  EXPECT_EQ(PackedTokens(config, 33, 1), 1);
  EXPECT_EQ(PackedTokens(config, 63, 32), 0);
  EXPECT_EQ(PackedTokens(config, 64, 32), 32);
  EXPECT_EQ(PackedTokens(config, 95, 32), 32);
  EXPECT_EQ(PackedTokens(config, 96, 32), 64);
  config.window = 0;
  EXPECT_EQ(PackedTokens(config, 5, 1), 5);
  EXPECT_EQ(PackedTokens(config, 31, 32), 0);
  EXPECT_EQ(PackedTokens(config, 32, 32), 32);
}

TEST(KvLayout, SequenceBytesCountWholePagesAndExactTokens) {
  const KvCacheConfig config = Uniform(3, 2, 2);  // 4 sinks, window 32
  const absl::StatusOr<KvLayout> layout = ComputeKvLayout(config);
  ASSERT_TRUE(layout.ok());
  const int64_t page = 3 * 4 * 768;
  const int64_t token = 3 * 2 * 2 * 64 * 2;
  EXPECT_EQ(SequenceBytes(config, *layout, 0), 0);
  EXPECT_EQ(SequenceBytes(config, *layout, 1), token);
  EXPECT_EQ(SequenceBytes(config, *layout, 32), 32 * token);
  EXPECT_EQ(SequenceBytes(config, *layout, 33), page + 33 * token);
  EXPECT_EQ(SequenceBytes(config, *layout, 36), page + 36 * token);
  EXPECT_EQ(SequenceBytes(config, *layout, 64), page + 36 * token);
  EXPECT_EQ(SequenceBytes(config, *layout, 65), 2 * page + 36 * token);
  EXPECT_EQ(SequenceBytes(config, *layout, 4096), 127 * page + 36 * token);
}

TEST(KvLayout, MethodsEffectiveBitsComeOut) {
  // kivi at 2 bits costs 1 bit of overhead an element (method: "Quantizers").
  const KvCacheConfig config = Uniform(1, 1, 2);
  const absl::StatusOr<KvLayout> layout = ComputeKvLayout(config);
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(layout->page_bytes() * 8, 32u * 64 * 2 * 3);
}

std::string ErrorOf(const KvCacheConfig& config) {
  const absl::StatusOr<KvLayout> layout = ComputeKvLayout(config);
  EXPECT_EQ(layout.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(layout.status().message());
}

TEST(KvLayout, ErrorsNameTheValueAndWhatIsSupported) {
  KvCacheConfig config = Uniform(2, 3, 4);
  config.groups.pop_back();
  EXPECT_THAT(ErrorOf(config), AllOf(HasSubstr("11"), HasSubstr("12")));

  config = Uniform(2, 3, 4);
  config.groups[9].width = 9;  // layer 1, head 1, V
  EXPECT_THAT(ErrorOf(config),
              AllOf(HasSubstr("layer 1, head 1, V"), HasSubstr("width 9")));

  config = Uniform(1, 1, 4);
  config.groups[0].quantizer.kind = QuantizerKind::kQuarot;
  config.geometry.head_dim = 96;
  EXPECT_THAT(ErrorOf(config),
              AllOf(HasSubstr("layer 0, head 0, K"), HasSubstr("96")));

  config = Uniform(1, 1, 4);
  config.page_tokens = 48;
  EXPECT_THAT(ErrorOf(config), HasSubstr("48"));

  config = Uniform(1, 1, 4);
  config.geometry.layers = 0;
  EXPECT_THAT(ErrorOf(config), HasSubstr("layers 0"));

  config = Uniform(1, 1, 4);
  config.geometry.kv_heads = -1;
  EXPECT_THAT(ErrorOf(config), HasSubstr("kv_heads -1"));

  config = Uniform(1, 1, 4);
  config.sink_tokens = -1;
  EXPECT_THAT(ErrorOf(config), HasSubstr("sink_tokens -1"));

  config = Uniform(1, 1, 4);
  config.window = -5;
  EXPECT_THAT(ErrorOf(config), HasSubstr("window -5"));
}

}  // namespace
}  // namespace ratequant::kv
