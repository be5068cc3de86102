#ifndef RATEQUANT_CLIENTS_CPP_BIT_MAP_FILE_H_
#define RATEQUANT_CLIENTS_CPP_BIT_MAP_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "ratequant/v1/allocation_service.pb.h"

namespace ratequant::client {

// An answer with a bit map, and when it came from the allocator.
struct SavedBitMap {
  v1::GetBitMapResponse answer;
  absl::Time received;  // to the microsecond
};

// What is in the file: an answer, and the digest of the query it answers.
struct BitMapFile {
  std::string query_digest;  // 64 hexadecimal digits
  SavedBitMap saved;
};

// Version of the file. Persisted; a change of its bytes needs a new one.
inline constexpr int kBitMapFileVersion = 1;

// The file that keeps an answer to one query:
//
//   8    "RQBITMAP"
//   4    kBitMapFileVersion
//   64   query digest, hexadecimal
//   8    when it was received, microseconds since 1970 (UTC)
//   8    size of what follows, without the checksum
//   ...  serialized GetBitMapResponse
//   64   SHA-256 of everything before, hexadecimal
//
// Numbers are little-endian.
std::string EncodeBitMapFile(const BitMapFile& file);

// DATA_LOSS when the bytes aren't such a file, or not all of it;
// FAILED_PRECONDITION for another version. The map itself isn't looked at: see
// LoadBitMap.
absl::StatusOr<BitMapFile> DecodeBitMapFile(absl::string_view bytes);

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_BIT_MAP_FILE_H_
