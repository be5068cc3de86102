// Packed bytes can't change without a new format version: caches on disk and in
// other processes hold them. If this test fails, the format has changed.

#include <gtest/gtest.h>

#include <cstdio>
#include <map>

#include "tests/kernels/codec_test_util.h"

namespace ratequant::kv {
namespace {

std::vector<uint8_t> EncodePage(const Codec::Options& options) {
  const auto codec = Codec::Create(options);
  EXPECT_TRUE(codec.ok()) << codec.status();
  std::vector<uint8_t> section((*codec)->layout().section_bytes, 0);
  const std::vector<float> rows =
      MakeRows(options.page_tokens, options.head_dim, 20260);
  const absl::Status status =
      (*codec)->Encode({rows.data(), DType::kFloat32, options.head_dim}, 0,
                       options.page_tokens, 2, absl::MakeSpan(section));
  EXPECT_TRUE(status.ok()) << status;
  return section;
}

std::string Hex(const std::vector<uint8_t>& bytes) {
  std::string hex;
  for (const uint8_t byte : bytes) {
    char text[3];
    std::snprintf(text, sizeof(text), "%02x", byte);
    hex += text;
  }
  return hex;
}

// 64-bit FNV-1a.
uint64_t Digest(const std::vector<uint8_t>& bytes) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3ull;
  return hash;
}

class GoldenBytes : public testing::TestWithParam<Backend> {};

struct Literal {
  const char* quantizer;
  Tensor tensor;
  int width;
  const char* hex;
};

const Literal kLiterals[] = {
#include "tests/kernels/golden_bytes_literals.inc"
};

// Whole sections of 16 tokens by 8 channels.
TEST_P(GoldenBytes, OfSmallPages) {
  for (const Literal& literal : kLiterals) {
    EXPECT_EQ(
        Hex(EncodePage({*ParseQuantizer(literal.quantizer), literal.tensor,
                        literal.width, 8, 16, GetParam()})),
        literal.hex)
        << literal.quantizer << " " << literal.width;
  }
}

struct PageDigest {
  const char* quantizer;
  Tensor tensor;
  int width;
  uint64_t digest;
};

const PageDigest kDigests[] = {
#include "tests/kernels/golden_bytes_digests.inc"
};

// Every quantizer, tensor and width: 32 tokens by 64 channels.
TEST_P(GoldenBytes, OfEveryQuantizer) {
  EXPECT_EQ(std::size(kDigests), 7u * 2 * 8 + 2);
  for (const PageDigest& page : kDigests) {
    EXPECT_EQ(Digest(EncodePage({*ParseQuantizer(page.quantizer), page.tensor,
                                 page.width, 64, 32, GetParam()})),
              page.digest)
        << page.quantizer << (page.tensor == Tensor::kKey ? " K " : " V ")
        << page.width;
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, GoldenBytes,
                         testing::Values(Backend::kReference, Backend::kSimd),
                         [](const auto& info) {
                           return info.param == Backend::kSimd ? "Simd"
                                                               : "Reference";
                         });

}  // namespace
}  // namespace ratequant::kv
