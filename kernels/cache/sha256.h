#ifndef RATEQUANT_KERNELS_CACHE_SHA256_H_
#define RATEQUANT_KERNELS_CACHE_SHA256_H_

#include <string>

#include "absl/strings/string_view.h"

namespace ratequant::kv {

// The SHA-256 (FIPS 180-4) of `bytes`, in lower-case hexadecimal. Here because
// the runtime links no cryptographic library; not made for secrets.
std::string Sha256Hex(absl::string_view bytes);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CACHE_SHA256_H_
