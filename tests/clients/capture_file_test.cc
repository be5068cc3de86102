// Recorded captures from anywhere: what is wrong with a file is named, and no
// bytes end the process.

#include "clients/replay/capture_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/clients/capture_builder.h"

namespace ratequant::replay {
namespace {

using ratequant::testing::CaptureBuilder;
using ratequant::testing::TempFolder;
using ::testing::EndsWith;
using ::testing::HasSubstr;

// What Open says about a path; empty when it takes it.
std::string OpenError(const std::string& path) {
  const auto capture = CaptureFile::Open(path);
  if (capture.ok()) return "";
  EXPECT_EQ(capture.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(capture.status().message());
}

// The same about a file of `bytes`.
std::string Error(const TempFolder& folder, const std::string& bytes) {
  return OpenError(folder.Write("c.safetensors", bytes));
}

TEST(CaptureFileTest, ReadsWhatIsInTheFile) {
  const TempFolder folder;
  CaptureBuilder builder;
  // Element [head 1, token 5, channel 3] of heads x 48 x 32.
  const size_t element = (1 * 48 + 5) * 32 + 3;
  builder.Set("sequence.2.layer.1.key", element, 17);
  builder.Set("sequence.2.layer.1.value", element, 18);
  builder.Set("sequence.2.layer.1.query", element, 19);
  const auto capture =
      CaptureFile::Open(folder.Write("c.safetensors", builder.Bytes()));
  ASSERT_TRUE(capture.ok()) << capture.status();
  const CaptureInfo& info = capture->info();
  EXPECT_EQ(info.model, "toy");
  EXPECT_EQ(info.geometry.layers, 2);
  EXPECT_EQ(info.geometry.kv_heads, 2);
  EXPECT_EQ(info.geometry.query_heads, 4);
  EXPECT_EQ(info.geometry.head_dim, 32);
  EXPECT_EQ(info.sequences, 3);
  EXPECT_EQ(info.tokens, 48);
  EXPECT_FALSE(info.gradients);
  EXPECT_EQ(info.attention[0].softmax_scale, 0.125f);
  EXPECT_EQ(info.attention[0].soft_cap, 0);
  EXPECT_EQ(info.attention[1].soft_cap, 20);
  EXPECT_EQ(info.attention[1].sliding_window, 16);
  EXPECT_EQ(info.attention[1].query_heads, 4);
  const std::pair<kv::ConstHeads, float> heads[] = {
      {capture->keys(2, 1), 17},
      {capture->values(2, 1), 18},
      {capture->queries(2, 1), 19}};
  for (const auto& [rows, value] : heads) {
    EXPECT_EQ(static_cast<const float*>(
                  rows.data)[rows.head_stride + 5 * rows.row_stride + 3],
              value);
  }
}

TEST(CaptureFileTest, MissingFoldersPipesAndEmptyFilesAreSaid) {
  const TempFolder folder;
  EXPECT_EQ(CaptureFile::Open(folder.path() + "/none").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_THAT(OpenError(folder.path()), EndsWith("is not a regular file"));
  const std::string pipe = folder.path() + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(OpenError(pipe), EndsWith("is not a regular file"));
  EXPECT_THAT(Error(folder, ""), EndsWith("is empty"));
}

struct HostileCase {
  const char* name;
  std::function<std::string()> bytes;
  const char* message;
};

// The capture with one change to its header or data.
std::function<std::string()> Changed(
    std::function<void(CaptureBuilder&)> change) {
  return [change] {
    CaptureBuilder builder;
    change(builder);
    return builder.Bytes();
  };
}

// With one piece of the header's text replaced.
std::function<std::string()> Replaced(const std::string& from,
                                      const std::string& to) {
  return [from, to] {
    const CaptureBuilder builder;
    std::string header = builder.header.dump();
    const size_t at = header.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return builder.BytesWith(header.replace(at, from.size(), to));
  };
}

std::function<std::string()> Metadata(const std::string& key,
                                      const std::string& value) {
  return Changed([key, value](CaptureBuilder& builder) {
    builder.header["__metadata__"][key] = value;
  });
}

// A header of these bytes and no data.
std::function<std::string()> Header(const std::string& text) {
  return [text] {
    CaptureBuilder builder;
    builder.data.clear();
    return builder.BytesWith(text);
  };
}

class HostileCaptureTest : public ::testing::TestWithParam<HostileCase> {};

TEST_P(HostileCaptureTest, IsRefusedByName) {
  const TempFolder folder;
  EXPECT_THAT(Error(folder, GetParam().bytes()), HasSubstr(GetParam().message));
}

constexpr char kKey[] = "sequence.0.layer.0.key";

INSTANTIATE_TEST_SUITE_P(
    Headers, HostileCaptureTest,
    ::testing::Values(
        HostileCase{"TooShort", [] { return std::string("RIFF"); },
                    "4 bytes are no safetensors file"},
        HostileCase{"HugeLength", [] { return std::string(64, '\xff'); },
                    "header would have 18446744073709551615 bytes; supported"},
        HostileCase{"LongerThanTheFile",
                    [] { return std::string("\0\0\1\0\0\0\0\0{}", 10); },
                    "header has 65536 bytes, the file has 10: truncated"},
        HostileCase{"NotJson", Header("{\"a\":"), "is not JSON from byte"},
        HostileCase{"NotUtf8", Header("{\"a\xff\":{}}"),
                    "is not JSON from byte"},
        HostileCase{"NoObject", Header("[1]"), "is not a JSON object"},
        HostileCase{"DeepLists", Header("{\"a\":" + std::string(4 << 20, '[')),
                    "has a list in the place of the value of 'a'"},
        HostileCase{"DeepShape",
                    Header("{\"a\":{\"shape\":" + std::string(4 << 20, '[')),
                    "has a list in the place of the value of 'shape'"},
        HostileCase{"DeepObjects",
                    [] {
                      std::string text;
                      for (int i = 0; i < 1 << 19; ++i) text += "{\"a\":";
                      return Header(text)();
                    },
                    "tensor 'a' has an unknown field 'a'"},
        HostileCase{"ControlCharacters",
                    Replaced("\"sequence.0.layer.0.key\":{\"dtype\":\"F32\"",
                             "\"\\u001b[2J\":{\"x\":1"),
                    "tensor '\\x1b[2J' has an unknown field 'x'"},
        HostileCase{"TensorTwice",
                    Replaced("\"sequence.0.layer.0.value\"",
                             "\"sequence.0.layer.0.key\""),
                    "tensor 'sequence.0.layer.0.key' is there twice"},
        HostileCase{"MetadataTwice", Replaced("\"kv_heads\"", "\"layers\""),
                    "metadata 'layers' is there twice"},
        HostileCase{"FieldTwice",
                    Replaced("\"dtype\":\"F32\"", "\"shape\":[1]"),
                    "tensor 'sequence.0.layer.0.key' has twice the field "
                    "'shape'"},
        HostileCase{"UnknownField", Replaced("\"dtype\":\"F32\"", "\"x\":1"),
                    "has an unknown field 'x'"},
        HostileCase{"LacksAField", Replaced("\"dtype\":\"F32\",", ""),
                    "lacks dtype, shape or data_offsets"},
        HostileCase{"NegativeShape", Replaced("[2,48,32]", "[-2,48,32]"),
                    "has a negative number in the place of the value of "
                    "'shape'"},
        HostileCase{"FractionalShape", Replaced("[2,48,32]", "[2.5,48,32]"),
                    "has a number that isn't whole or is too large"},
        HostileCase{"ShapeAbove64Bits",
                    Replaced("[2,48,32]", "[99999999999999999999]"),
                    "has a number that isn't whole or is too large"},
        HostileCase{"TextAsShape", Replaced("[2,48,32]", "\"2\""),
                    "has a text in the place of the value of 'shape'"},
        HostileCase{"NumberInMetadata", Replaced("\"toy\"", "7"),
                    "has a number in the place of the value of 'model'"}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Tensors, HostileCaptureTest,
    ::testing::Values(
        HostileCase{"Type", Replaced("\"dtype\":\"F32\"", "\"dtype\":\"I8\""),
                    "tensor 'sequence.0.layer.0.key' is of type 'I8'; "
                    "supported are F32, F16 and BF16"},
        HostileCase{"OverflowingShape",
                    Replaced("[2,48,32]", "[4294967296,4294967296,4]"),
                    "its shape [4294967296, 4294967296, 4] takes too many"},
        HostileCase{"WrongShape", Replaced("[2,48,32]", "[2,48,33]"),
                    "has 12288 bytes, its shape [2, 48, 33] takes 12672"},
        HostileCase{"ManyDimensions",
                    Replaced("[2,48,32]", "[2,48,32,1,1,1,1,1,1]"),
                    "has 9 dimensions; supported are 8 at most"},
        HostileCase{"OneOffset", Replaced("[0,12288]", "[0]"),
                    "has 1 data_offsets instead of 2"},
        HostileCase{
            "OutsideTheFile", Changed([](CaptureBuilder& builder) {
              builder.header[kKey]["data_offsets"] = {1u << 30, 1u << 31};
            }),
            "has bytes 1073741824 to 2147483648 of"},
        HostileCase{"Backwards", Replaced("[0,12288]", "[12288,0]"),
                    "has bytes 12288 to 0 of"},
        HostileCase{
            "Overlapping", Changed([](CaptureBuilder& builder) {
              builder.header["sequence.0.layer.0.value"]["data_offsets"] = {
                  4, 12292};
            }),
            "tensor 'sequence.0.layer.0.value' begins at byte 4 of the "
            "data, inside the tensor before it, which ends at 12288"},
        HostileCase{"Misaligned", Changed([](CaptureBuilder& builder) {
                      builder.header[kKey]["data_offsets"] = {2, 12290};
                    }),
                    "not at a multiple of 4"},
        HostileCase{"Gap", Changed([](CaptureBuilder& builder) {
                      builder.header[kKey]["data_offsets"] = {4, 12292};
                    }),
                    "leaves bytes 0 to 4 of the data unused"},
        HostileCase{"MoreData", Changed([](CaptureBuilder& builder) {
                      builder.data += "more";
                    }),
                    "4 bytes follow the last tensor's end"},
        HostileCase{"Truncated", Changed([](CaptureBuilder& builder) {
                      builder.data.pop_back();
                    }),
                    "tensor 'sequence.2.layer.1.query' has bytes"}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Captures, HostileCaptureTest,
    ::testing::Values(
        HostileCase{"NoMetadata", Changed([](CaptureBuilder& builder) {
                      builder.header.erase("__metadata__");
                    }),
                    "the capture's metadata has no 'ratequant_capture'"},
        HostileCase{"Version", Metadata("ratequant_capture", "2"),
                    "'ratequant_capture' is '2'; supported: 1"},
        HostileCase{"Rope", Metadata("rope", "none"),
                    "'rope' is 'none'; supported: applied"},
        HostileCase{"DType", Metadata("dtype", "int8"),
                    "'dtype' is 'int8'; supported: float32, float16, bfloat16"},
        HostileCase{"OtherDType", Metadata("dtype", "float16"),
                    "is of another type than its capture's 'dtype'"},
        HostileCase{"ZeroLayers", Metadata("layers", "0"),
                    "'layers' is '0'; supported: whole numbers from 1 to"},
        HostileCase{"AbsurdSequences", Metadata("sequences", "1000000"),
                    "the capture has 18 tensors; 1000000 sequences of 2 layers "
                    "with 3 tensors each are 6000000"},
        HostileCase{"QueryHeads", Metadata("query_heads", "3"),
                    "3 query heads, no multiple of its 2 KV heads"},
        HostileCase{"HeadDim", Metadata("head_dim", "64"),
                    "is [2, 48, 32], not [2, 48, 64]"},
        HostileCase{"Scale", Metadata("softmax_scale", "0.1,nan"),
                    "'softmax_scale' is 'nan'; supported: numbers above 0"},
        HostileCase{"ScaleOfOneLayer", Metadata("softmax_scale", "0.1"),
                    "'softmax_scale' has 1 numbers for 2 layers"},
        HostileCase{"Cap", Metadata("soft_cap", "-1,0"),
                    "'soft_cap' is '-1'; supported"},
        HostileCase{"Window", Metadata("sliding_window", "0,1e300"),
                    "'sliding_window' is '1e300'; supported"},
        HostileCase{"MissingTensor",
                    Replaced("\"sequence.1.layer.0.key\"", "\"other\""),
                    "the capture has no tensor 'sequence.1.layer.0.key'"}),
    [](const auto& info) { return info.param.name; });

// A real capture when RATEQUANT_CAPTURE names one, else a made one.
std::string SeedFile() {
  const char* path = std::getenv("RATEQUANT_CAPTURE");
  if (path == nullptr) return CaptureBuilder().Bytes();
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Adds up what every tensor of a capture that was taken points to, so that a
// sanitizer sees pointers that lead nowhere.
double ReadAll(const CaptureFile& capture) {
  const CaptureInfo& info = capture.info();
  double sum = 0;
  const auto read = [&](const kv::ConstHeads& rows, int heads) {
    const size_t bytes = heads * rows.head_stride * kv::ElementSize(rows.dtype);
    for (size_t i = 0; i < bytes; i += 512) {
      sum += static_cast<const char*>(rows.data)[i];
    }
    sum += static_cast<const char*>(rows.data)[bytes - 1];
  };
  for (int sequence = 0; sequence < info.sequences; ++sequence) {
    for (int layer = 0; layer < info.geometry.layers; ++layer) {
      read(capture.keys(sequence, layer), info.geometry.kv_heads);
      read(capture.values(sequence, layer), info.geometry.kv_heads);
      read(capture.queries(sequence, layer), info.geometry.query_heads);
    }
  }
  return sum;
}

// Bytes that mean something in a header are tried as well as random ones.
char Byte(std::mt19937& random) {
  constexpr char kMeaningful[] = "{}[]\",:0129-.eE \\ntf\0\xff";
  return random() % 2 == 0 ? kMeaningful[random() % (sizeof(kMeaningful) - 1)]
                           : static_cast<char>(random());
}

TEST(CaptureFuzzTest, ChangedBytesNeverEndTheProcess) {
  const std::string seed = SeedFile();
  ASSERT_GT(seed.size(), 8u);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, seed.data(), 8);
  ASSERT_LT(header_bytes, seed.size());
  const TempFolder folder;
  const std::string path = folder.Write("c.safetensors", seed);
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  std::mt19937 random(1);
  int refused = 0, taken = 0;
  double sum = 0;
  constexpr int kRounds = 4000;
  for (int round = 0; round < kRounds; ++round) {
    // The data's values don't matter to the reader: the length and the header.
    std::map<size_t, char> changes;
    for (int n = 1 + random() % 4; n > 0; --n) {
      changes[random() % (random() % 4 == 0 ? 8 : 8 + header_bytes)] =
          Byte(random);
    }
    for (const auto& [at, byte] : changes) file.seekp(at).put(byte);
    file.flush();
    const auto capture = CaptureFile::Open(path);
    if (capture.ok()) {
      ++taken;
      sum += ReadAll(*capture);
    } else {
      ++refused;
      EXPECT_FALSE(capture.status().message().empty());
    }
    for (const auto& [at, byte] : changes) file.seekp(at).put(seed[at]);
  }
  file.flush();
  EXPECT_TRUE(CaptureFile::Open(path).ok());
  RecordProperty("taken", taken);
  EXPECT_GT(refused, kRounds / 4) << sum;
}

TEST(CaptureFuzzTest, TruncationAnywhereIsRefused) {
  const std::string seed = SeedFile();
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, seed.data(), 8);
  const TempFolder folder;
  const std::string path = folder.Write("c.safetensors", seed);
  std::mt19937 random(2);
  // Longest first: the file only ever shrinks.
  std::vector<size_t> sizes = {seed.size() - 1, 8 + header_bytes, 8, 7, 1, 0};
  for (int i = 0; i < 200; ++i) sizes.push_back(random() % seed.size());
  std::sort(sizes.rbegin(), sizes.rend());
  for (size_t size : sizes) {
    std::filesystem::resize_file(path, size);
    EXPECT_EQ(CaptureFile::Open(path).status().code(),
              absl::StatusCode::kInvalidArgument)
        << size;
  }
}

}  // namespace
}  // namespace ratequant::replay
