#include "clients/replay/capture_metadata.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "clients/replay/safetensors_header.h"

namespace ratequant::replay {
namespace {

// More than any model or recording has; keeps products of two in 64 bits.
constexpr int kMaxCount = 1 << 20;

// Reads values by key and keeps the first error.
class Reader {
 public:
  explicit Reader(const std::map<std::string, std::string>& metadata)
      : metadata_(metadata) {}

  const absl::Status& status() const { return status_; }

  std::string Text(const std::string& key) {
    const auto found = metadata_.find(key);
    if (found != metadata_.end()) return found->second;
    Fail(absl::StrCat("the capture's metadata has no '", key, "'"));
    return "";
  }

  // One of the texts that are supported, as its place among them.
  size_t Choice(const std::string& key, const std::vector<std::string>& known) {
    const std::string text = Text(key);
    for (size_t i = 0; i < known.size(); ++i) {
      if (text == known[i]) return i;
    }
    Wrong(key, text, absl::StrJoin(known, ", "));
    return 0;
  }

  int Count(const std::string& key) {
    const std::string text = Text(key);
    int value = 0;
    if (absl::SimpleAtoi(text, &value) && value >= 1 && value <= kMaxCount) {
      return value;
    }
    Wrong(key, text, absl::StrCat("whole numbers from 1 to ", kMaxCount));
    return 1;
  }

  // `count` numbers that `valid` holds for; `supported` says which those are.
  template <typename Valid>
  std::vector<double> Numbers(const std::string& key, int count, Valid valid,
                              const char* supported) {
    const std::string text = Text(key);
    std::vector<double> numbers;
    for (absl::string_view part : absl::StrSplit(text, ',')) {
      double value = 0;
      if (!absl::SimpleAtod(part, &value) || !valid(value)) {
        Wrong(key, std::string(part), supported);
      }
      numbers.push_back(value);
    }
    if (numbers.size() != static_cast<size_t>(count)) {
      Fail(absl::StrCat("the capture's '", key, "' has ", numbers.size(),
                        " numbers for ", count, " layers"));
    }
    numbers.resize(count);
    return numbers;
  }

  void Fail(const std::string& message) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(message);
  }

 private:
  void Wrong(const std::string& key, const std::string& value,
             const std::string& supported) {
    Fail(absl::StrCat("the capture's '", key, "' is ", QuotedName(value),
                      "; supported: ", supported));
  }

  const std::map<std::string, std::string>& metadata_;
  absl::Status status_;
};

bool FitsFloat(double value) {
  return std::abs(value) <= std::numeric_limits<float>::max();
}

std::vector<kv::AttentionParams> ReadAttention(const kv::KvGeometry& geometry,
                                               Reader& reader) {
  const std::vector<double> scales = reader.Numbers(
      "softmax_scale", geometry.layers,
      [](double x) { return static_cast<float>(x) > 0 && FitsFloat(x); },
      "numbers above 0");
  const std::vector<double> caps = reader.Numbers(
      "soft_cap", geometry.layers,
      [](double x) { return x >= 0 && FitsFloat(x); }, "0 and numbers above");
  const std::vector<double> windows = reader.Numbers(
      "sliding_window", geometry.layers,
      [](double x) { return x >= 0 && x <= INT32_MAX && x == std::floor(x); },
      "0 and whole numbers above");
  std::vector<kv::AttentionParams> attention(geometry.layers);
  for (int layer = 0; layer < geometry.layers; ++layer) {
    attention[layer] = {.query_heads = geometry.query_heads,
                        .softmax_scale = static_cast<float>(scales[layer]),
                        .soft_cap = static_cast<float>(caps[layer]),
                        .sliding_window = static_cast<int32_t>(windows[layer])};
  }
  return attention;
}

}  // namespace

absl::StatusOr<CaptureInfo> ParseCaptureMetadata(
    const std::map<std::string, std::string>& metadata) {
  Reader reader(metadata);
  CaptureInfo info;
  reader.Choice("ratequant_capture", {absl::StrCat(kCaptureVersion)});
  reader.Choice("rope", {"applied"});
  info.model = reader.Text("model");
  info.geometry = {.layers = reader.Count("layers"),
                   .kv_heads = reader.Count("kv_heads"),
                   .head_dim = reader.Count("head_dim"),
                   .query_heads = reader.Count("query_heads")};
  if (info.geometry.query_heads % info.geometry.kv_heads != 0) {
    reader.Fail(absl::StrCat("the capture has ", info.geometry.query_heads,
                             " query heads, no multiple of its ",
                             info.geometry.kv_heads, " KV heads"));
  }
  info.sequences = reader.Count("sequences");
  info.tokens = reader.Count("sequence_length");
  const kv::DType dtypes[] = {kv::DType::kFloat32, kv::DType::kFloat16,
                              kv::DType::kBFloat16};
  info.dtype =
      dtypes[reader.Choice("dtype", {"float32", "float16", "bfloat16"})];
  info.attention = ReadAttention(info.geometry, reader);
  if (!reader.status().ok()) return reader.status();
  return info;
}

}  // namespace ratequant::replay
