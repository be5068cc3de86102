#include "clients/replay/safetensors.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/replay/safetensors_header.h"

namespace ratequant::replay {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr size_t kMaxDimensions = 8;

std::optional<kv::DType> DTypeOf(absl::string_view name) {
  if (name == "F32") return kv::DType::kFloat32;
  if (name == "F16") return kv::DType::kFloat16;
  if (name == "BF16") return kv::DType::kBFloat16;
  return std::nullopt;
}

// Bytes of a tensor; nullopt when they are no number of 64 bits.
std::optional<uint64_t> TensorBytes(const std::vector<uint64_t>& shape,
                                    kv::DType dtype) {
  uint64_t bytes = kv::ElementSize(dtype);
  for (uint64_t extent : shape) {
    if (__builtin_mul_overflow(bytes, extent, &bytes)) return std::nullopt;
  }
  return bytes;
}

template <typename... What>
absl::Status TensorError(const std::string& name, const What&... what) {
  return absl::InvalidArgumentError(
      absl::StrCat("tensor ", QuotedName(name), " ", what...));
}

// A tensor's bytes within the data.
struct Extent {
  uint64_t begin = 0;
  uint64_t end = 0;
  const std::string* name = nullptr;
};

// `data_bytes` bytes follow the header, which ends at `data_begin`.
absl::StatusOr<std::pair<kv::DType, Extent>> CheckTensor(
    const std::string& name, const TensorEntry& entry, uint64_t data_begin,
    uint64_t data_bytes) {
  const std::optional<kv::DType> dtype = DTypeOf(entry.dtype);
  if (!dtype.has_value()) {
    return TensorError(name, "is of type ", QuotedName(entry.dtype),
                       "; supported are F32, F16 and BF16");
  }
  if (entry.data_offsets.size() != 2) {
    return TensorError(name, "has ", entry.data_offsets.size(),
                       " data_offsets instead of 2");
  }
  if (entry.shape.size() > kMaxDimensions) {
    return TensorError(name, "has ", entry.shape.size(),
                       " dimensions; supported are ", kMaxDimensions,
                       " at most");
  }
  const uint64_t begin = entry.data_offsets[0], end = entry.data_offsets[1];
  const std::string shape =
      absl::StrCat("[", absl::StrJoin(entry.shape, ", "), "]");
  if (begin > end || end > data_bytes) {
    return TensorError(name, "has bytes ", begin, " to ", end, " of ",
                       data_bytes, " in the file");
  }
  const std::optional<uint64_t> bytes = TensorBytes(entry.shape, *dtype);
  if (bytes != end - begin) {
    return TensorError(name, "has ", end - begin, " bytes, its shape ", shape,
                       " takes ",
                       bytes.has_value() ? absl::StrCat(*bytes) : "too many");
  }
  if ((data_begin + begin) % kv::ElementSize(*dtype) != 0) {
    return TensorError(name, "begins at byte ", data_begin + begin,
                       " of the file, not at a multiple of ",
                       kv::ElementSize(*dtype));
  }
  return std::make_pair(*dtype, Extent{begin, end, &name});
}

// The tensors must cover the data: nothing twice, nothing not at all.
absl::Status CheckCoverage(std::vector<Extent> extents, uint64_t data_bytes) {
  std::sort(extents.begin(), extents.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t covered = 0;
  for (const Extent& extent : extents) {
    if (extent.begin < covered) {
      return TensorError(*extent.name, "begins at byte ", extent.begin,
                         " of the data, inside the tensor before it, which "
                         "ends at ",
                         covered);
    }
    if (extent.begin > covered) {
      return TensorError(*extent.name, "leaves bytes ", covered, " to ",
                         extent.begin, " of the data unused");
    }
    covered = extent.end;
  }
  if (covered != data_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        data_bytes - covered, " bytes follow the last tensor's end"));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> HeaderBytes(absl::string_view file) {
  if (file.size() < kLengthBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.size(), " bytes are no safetensors file"));
  }
  uint64_t bytes = 0;
  for (int i = kLengthBytes - 1; i >= 0; --i) {
    bytes = bytes << 8 | static_cast<uint8_t>(file[i]);
  }
  if (bytes > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the safetensors header would have ", bytes,
                     " bytes; supported are ", kMaxHeaderBytes, " at most"));
  }
  if (bytes > file.size() - kLengthBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the safetensors header has ", bytes,
                     " bytes, the file has ", file.size(), ": truncated"));
  }
  return bytes;
}

}  // namespace

absl::StatusOr<SafeTensors> ParseSafeTensors(absl::string_view file) {
  const absl::StatusOr<uint64_t> header_bytes = HeaderBytes(file);
  if (!header_bytes.ok()) return header_bytes.status();
  absl::StatusOr<SafeTensorsHeader> header =
      ParseSafeTensorsHeader(file.substr(kLengthBytes, *header_bytes));
  if (!header.ok()) return header.status();
  const absl::string_view data = file.substr(kLengthBytes + *header_bytes);
  SafeTensors result;
  std::vector<Extent> extents;
  for (auto& [name, entry] : header->tensors) {
    const auto checked =
        CheckTensor(name, entry, file.size() - data.size(), data.size());
    if (!checked.ok()) return checked.status();
    const auto& [dtype, extent] = *checked;
    extents.push_back(extent);
    result.tensors[name] = {.dtype = dtype,
                            .shape = std::move(entry.shape),
                            .data = data.data() + extent.begin};
  }
  const absl::Status coverage = CheckCoverage(std::move(extents), data.size());
  if (!coverage.ok()) return coverage;
  result.metadata = std::move(header->metadata);
  return result;
}

}  // namespace ratequant::replay
