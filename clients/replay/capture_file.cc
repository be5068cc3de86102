#include "clients/replay/capture_file.h"

#include <cstdint>
#include <map>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/replay/safetensors.h"

namespace ratequant::replay {
namespace {

constexpr int kKey = 0, kValue = 1, kQuery = 2;
// The first three, or with gradients the first five or all.
constexpr const char* kKinds[] = {
    "key",          "value",          "query",
    "key_gradient", "value_gradient", "output_gradient"};
constexpr int kOutputGradient = 5;
constexpr int kCounts[] = {3, 5, 6};  // of kinds in a file

std::string TensorName(int sequence, int layer, int kind) {
  return absl::StrCat("sequence.", sequence, ".layer.", layer, ".",
                      kKinds[kind]);
}

std::string ShapeText(const std::vector<uint64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::StatusOr<const void*> FindTensor(
    const std::map<std::string, SafeTensor>& tensors, const CaptureInfo& info,
    const std::string& name, int kind) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the capture has no tensor '", name, "'"));
  }
  const SafeTensor& tensor = found->second;
  if (tensor.dtype != info.dtype) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor '", name, "' is of another type than its capture's 'dtype'"));
  }
  const bool queried = kind == kQuery || kind == kOutputGradient;
  const int heads =
      queried ? info.geometry.query_heads : info.geometry.kv_heads;
  const std::vector<uint64_t> shape = {
      static_cast<uint64_t>(heads), static_cast<uint64_t>(info.tokens),
      static_cast<uint64_t>(info.geometry.head_dim)};
  if (tensor.shape != shape) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor '", name, "' is ", ShapeText(tensor.shape), ", not ",
        ShapeText(shape), " as its capture's metadata says"));
  }
  return tensor.data;
}

// The data of every tensor, [sequences, layers, kinds].
absl::StatusOr<std::vector<const void*>> FindTensors(
    const std::map<std::string, SafeTensor>& tensors, CaptureInfo& info) {
  int kinds = kCounts[0];
  for (const int count : kCounts) {
    if (tensors.count(TensorName(0, 0, count - 1)) > 0) kinds = count;
  }
  info.gradients = kinds > kCounts[0];
  const int64_t expected =
      int64_t{info.sequences} * info.geometry.layers * kinds;
  // Checked first: the loop below is as long as the file's header is.
  if (expected != static_cast<int64_t>(tensors.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("the capture has ", tensors.size(), " tensors; ",
                     info.sequences, " sequences of ", info.geometry.layers,
                     " layers with ", kinds, " tensors each are ", expected));
  }
  std::vector<const void*> data;
  for (int sequence = 0; sequence < info.sequences; ++sequence) {
    for (int layer = 0; layer < info.geometry.layers; ++layer) {
      for (int kind = 0; kind < kinds; ++kind) {
        const auto found =
            FindTensor(tensors, info, TensorName(sequence, layer, kind), kind);
        if (!found.ok()) return found.status();
        data.push_back(*found);
      }
    }
  }
  return data;
}

absl::Status AtPath(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(path, ": ", status.message()));
}

}  // namespace

absl::StatusOr<CaptureFile> CaptureFile::Open(const std::string& path) {
  absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const absl::StatusOr<SafeTensors> parsed = ParseSafeTensors(file->bytes());
  if (!parsed.ok()) return AtPath(path, parsed.status());
  absl::StatusOr<CaptureInfo> info = ParseCaptureMetadata(parsed->metadata);
  if (!info.ok()) return AtPath(path, info.status());
  auto data = FindTensors(parsed->tensors, *info);
  if (!data.ok()) return AtPath(path, data.status());
  return CaptureFile(*std::move(file), *std::move(info), *std::move(data));
}

kv::ConstHeads CaptureFile::keys(int sequence, int layer) const {
  return Heads(sequence, layer, kKey);
}

kv::ConstHeads CaptureFile::values(int sequence, int layer) const {
  return Heads(sequence, layer, kValue);
}

kv::ConstHeads CaptureFile::queries(int sequence, int layer) const {
  return Heads(sequence, layer, kQuery);
}

kv::ConstHeads CaptureFile::Heads(int sequence, int layer, int kind) const {
  const int64_t kinds = static_cast<int64_t>(data_.size()) /
                        (int64_t{info_.sequences} * info_.geometry.layers);
  const int64_t index =
      (int64_t{sequence} * info_.geometry.layers + layer) * kinds + kind;
  const int64_t head_dim = info_.geometry.head_dim;
  return {.data = data_[index],
          .dtype = info_.dtype,
          .head_stride = head_dim * info_.tokens,
          .row_stride = head_dim};
}

}  // namespace ratequant::replay
