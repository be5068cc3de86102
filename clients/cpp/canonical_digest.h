#ifndef RATEQUANT_CLIENTS_CPP_CANONICAL_DIGEST_H_
#define RATEQUANT_CLIENTS_CPP_CANONICAL_DIGEST_H_

#include <string>

#include "google/protobuf/message_lite.h"

namespace ratequant::client {

// Lower-case hexadecimal SHA-256 of the deterministic serialization of
// `message`, which is what resources are named by.
std::string CanonicalDigest(const google::protobuf::MessageLite& message);

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_CANONICAL_DIGEST_H_
