#ifndef RATEQUANT_KERNELS_CACHE_SAVED_HEADER_H_
#define RATEQUANT_KERNELS_CACHE_SAVED_HEADER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace ratequant::kv {

// The first bytes of a saved sequence (kernels/FORMAT.md, "Saved sequences").
struct SavedHeader {
  static constexpr int64_t kBytes = 96;

  std::string format_digest;  // FormatDigest
  int64_t length = 0;         // tokens
  int64_t packed_floor = 0;   // SequenceStep
};

// Writes kBytes; `total_bytes` is of the whole.
void WriteSavedHeader(const SavedHeader& header, int64_t total_bytes,
                      uint8_t* out);

// INVALID_ARGUMENT for bytes that don't begin with a header of this format
// version, or aren't as many as it says.
absl::StatusOr<SavedHeader> ReadSavedHeader(absl::Span<const uint8_t> saved);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CACHE_SAVED_HEADER_H_
