#include "clients/cpp/bit_map_file.h"

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/cache/sha256.h"

namespace ratequant::client {
namespace {

constexpr absl::string_view kMagic = "RQBITMAP";
constexpr size_t kDigestSize = 64;
constexpr size_t kVersionEnd = 8 + 4;
constexpr size_t kHeaderSize = kVersionEnd + kDigestSize + 8 + 8;

void PutNumber(uint64_t value, int bytes, std::string* out) {
  for (int i = 0; i < bytes; ++i) {
    out->push_back(static_cast<char>(value >> (8 * i)));
  }
}

// Takes `bytes` bytes off the front of `in`, which has them.
uint64_t TakeNumber(int bytes, absl::string_view* in) {
  uint64_t value = 0;
  for (int i = 0; i < bytes; ++i) {
    value |= uint64_t{static_cast<unsigned char>((*in)[i])} << (8 * i);
  }
  in->remove_prefix(bytes);
  return value;
}

absl::Status CheckVersion(absl::string_view bytes) {
  if (bytes.size() < kVersionEnd || !absl::StartsWith(bytes, kMagic)) {
    return absl::DataLossError("this isn't a saved bit map");
  }
  bytes.remove_prefix(kMagic.size());
  const uint64_t version = TakeNumber(4, &bytes);
  if (version == kBitMapFileVersion) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("it has version ", version,
                   " of saved bit maps; supported "
                   "is ",
                   kBitMapFileVersion));
}

absl::Status CheckWhole(absl::string_view bytes) {
  const bool fits = bytes.size() >= kHeaderSize + kDigestSize;
  const absl::string_view content =
      bytes.substr(0, fits ? bytes.size() - kDigestSize : 0);
  if (fits && kv::Sha256Hex(content) == bytes.substr(content.size())) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat(
      "its ", bytes.size(), " bytes don't have the checksum they end with"));
}

}  // namespace

std::string EncodeBitMapFile(const BitMapFile& file) {
  const std::string answer = file.saved.answer.SerializeAsString();
  std::string bytes(kMagic);
  PutNumber(kBitMapFileVersion, 4, &bytes);
  bytes += file.query_digest;
  PutNumber(absl::ToUnixMicros(file.saved.received), 8, &bytes);
  PutNumber(answer.size(), 8, &bytes);
  bytes += answer;
  bytes += kv::Sha256Hex(bytes);
  return bytes;
}

absl::StatusOr<BitMapFile> DecodeBitMapFile(absl::string_view bytes) {
  absl::Status status = CheckVersion(bytes);
  if (status.ok()) status = CheckWhole(bytes);
  if (!status.ok()) return status;
  bytes.remove_suffix(kDigestSize);
  bytes.remove_prefix(kVersionEnd);
  BitMapFile file;
  file.query_digest = std::string(bytes.substr(0, kDigestSize));
  bytes.remove_prefix(kDigestSize);
  file.saved.received =
      absl::FromUnixMicros(static_cast<int64_t>(TakeNumber(8, &bytes)));
  const uint64_t size = TakeNumber(8, &bytes);
  if (size != bytes.size() ||
      !file.saved.answer.ParseFromArray(bytes.data(),
                                        static_cast<int>(bytes.size()))) {
    return absl::DataLossError("its answer can't be parsed");
  }
  return file;
}

}  // namespace ratequant::client
