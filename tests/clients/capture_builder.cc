#include "tests/clients/capture_builder.h"

#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"

namespace ratequant::testing {
namespace {

constexpr int kSequences = 3, kTokens = 48, kLayers = 2, kKvHeads = 2,
              kQueryHeads = 4, kHeadDim = 32;

}  // namespace

CaptureBuilder::CaptureBuilder() {
  header["__metadata__"] = {{"ratequant_capture", "1"},
                            {"model", "toy"},
                            {"layers", absl::StrCat(kLayers)},
                            {"kv_heads", absl::StrCat(kKvHeads)},
                            {"query_heads", absl::StrCat(kQueryHeads)},
                            {"head_dim", absl::StrCat(kHeadDim)},
                            {"sequences", absl::StrCat(kSequences)},
                            {"sequence_length", absl::StrCat(kTokens)},
                            {"dtype", "float32"},
                            {"rope", "applied"},
                            {"softmax_scale", "0.125,0.25"},
                            {"soft_cap", "0.0,20.0"},
                            {"sliding_window", "0,16"}};
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (int sequence = 0; sequence < kSequences; ++sequence) {
    for (int layer = 0; layer < kLayers; ++layer) {
      for (const char* kind : {"key", "value", "query"}) {
        const int heads =
            std::strcmp(kind, "query") == 0 ? kQueryHeads : kKvHeads;
        std::vector<float> values(heads * kTokens * kHeadDim);
        for (float& value : values) value = normal(random);
        const size_t begin = data.size();
        data.append(reinterpret_cast<const char*>(values.data()),
                    values.size() * sizeof(float));
        header[absl::StrCat("sequence.", sequence, ".layer.", layer, ".",
                            kind)] = {{"dtype", "F32"},
                                      {"shape", {heads, kTokens, kHeadDim}},
                                      {"data_offsets", {begin, data.size()}}};
      }
    }
  }
}

std::string CaptureBuilder::Bytes() const { return BytesWith(header.dump()); }

std::string CaptureBuilder::BytesWith(const std::string& header_text) const {
  // Spaces at its end align the data to 8 bytes.
  const uint64_t size = (header_text.size() + 7) / 8 * 8;
  std::string bytes;
  for (int i = 0; i < 8; ++i) {
    bytes.push_back(static_cast<char>(size >> (8 * i)));
  }
  absl::StrAppend(&bytes, header_text,
                  std::string(size - header_text.size(), ' '), data);
  return bytes;
}

void CaptureBuilder::Set(const std::string& tensor, size_t element,
                         float value) {
  const size_t begin = header[tensor]["data_offsets"][0];
  std::memcpy(&data[begin + element * sizeof(float)], &value, sizeof(value));
}

TempFolder::TempFolder() {
  std::string name =
      std::filesystem::temp_directory_path() / "ratequant-test-XXXXXX";
  path_ = mkdtemp(name.data()) == nullptr ? "" : name;
}

TempFolder::~TempFolder() {
  if (!path_.empty()) std::filesystem::remove_all(path_);
}

std::string TempFolder::Write(const std::string& name,
                              const std::string& bytes) const {
  const std::string path = absl::StrCat(path_, "/", name);
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

}  // namespace ratequant::testing
