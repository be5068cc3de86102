#include "kernels/cache/saved_header.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "ratequant/kv/codec.h"

namespace ratequant::kv {
namespace {

constexpr char kMagic[] = "RQKV";
constexpr int kVersionAt = 4;
constexpr int kDigestAt = 8;
constexpr int kDigestBytes = 64;
constexpr int kLengthAt = 72;
constexpr int kFloorAt = 80;
constexpr int kTotalAt = 88;

void StoreNumber(int64_t value, int bytes, uint8_t* out) {
  for (int i = 0; i < bytes; ++i) {
    out[i] = static_cast<uint8_t>(static_cast<uint64_t>(value) >> (8 * i));
  }
}

int64_t LoadNumber(const uint8_t* in, int bytes) {
  uint64_t value = 0;
  for (int i = 0; i < bytes; ++i) value |= uint64_t{in[i]} << (8 * i);
  return static_cast<int64_t>(value);
}

}  // namespace

void WriteSavedHeader(const SavedHeader& header, int64_t total_bytes,
                      uint8_t* out) {
  std::memcpy(out, kMagic, kVersionAt);
  StoreNumber(kFormatVersion, 4, out + kVersionAt);
  std::memcpy(out + kDigestAt, header.format_digest.data(), kDigestBytes);
  StoreNumber(header.length, 8, out + kLengthAt);
  StoreNumber(header.packed_floor, 8, out + kFloorAt);
  StoreNumber(total_bytes, 8, out + kTotalAt);
}

absl::StatusOr<SavedHeader> ReadSavedHeader(absl::Span<const uint8_t> saved) {
  const int64_t size = static_cast<int64_t>(saved.size());
  if (size < SavedHeader::kBytes ||
      std::memcmp(saved.data(), kMagic, kVersionAt) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(size,
                     " bytes that are not a saved sequence: they don't "
                     "begin with its header"));
  }
  const int64_t version = LoadNumber(saved.data() + kVersionAt, 4);
  if (version != kFormatVersion) {
    return absl::InvalidArgumentError(
        absl::StrCat("a saved sequence of format version ", version,
                     "; supported is version ", kFormatVersion));
  }
  const int64_t total = LoadNumber(saved.data() + kTotalAt, 8);
  if (total != size) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a saved sequence of ", total, " bytes, of which there are ", size));
  }
  SavedHeader header;
  header.format_digest.assign(
      reinterpret_cast<const char*>(saved.data()) + kDigestAt, kDigestBytes);
  header.length = LoadNumber(saved.data() + kLengthAt, 8);
  header.packed_floor = LoadNumber(saved.data() + kFloorAt, 8);
  return header;
}

}  // namespace ratequant::kv
