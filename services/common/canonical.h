#ifndef RATEQUANT_SERVICES_COMMON_CANONICAL_H_
#define RATEQUANT_SERVICES_COMMON_CANONICAL_H_

// Canonical bytes and digests of messages: what names an immutable resource.
// All functions are thread-safe.

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"

namespace ratequant {

// Deterministic serialization of `message`: fields in the order of their
// numbers, maps sorted. INVALID_ARGUMENT (UNKNOWN_FIELDS, naming the message
// type) when it or a message inside it carries fields this build doesn't know:
// their order isn't defined, so neither is a digest over them.
absl::StatusOr<std::string> CanonicalBytes(
    const google::protobuf::Message& message);

// Lower-case hexadecimal SHA-256 of CanonicalBytes.
absl::StatusOr<std::string> CanonicalDigest(
    const google::protobuf::Message& message);

// Lower-case hexadecimal SHA-256 of `bytes`.
std::string Sha256Hex(absl::string_view bytes);

}  // namespace ratequant

#endif  // RATEQUANT_SERVICES_COMMON_CANONICAL_H_
