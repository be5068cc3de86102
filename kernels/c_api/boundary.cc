#include "kernels/c_api/boundary.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace ratequant::kv {
namespace {

// Fixed, so that reporting that memory ran out needs none.
constexpr size_t kMessageBytes = 1024;
thread_local char last_error[kMessageBytes] = "";

// No struct will ever be longer: a larger size is memory the caller forgot to
// set, and isn't followed.
constexpr size_t kMaxStructBytes = 4096;

size_t StructSize(const void* from) {
  size_t size;
  std::memcpy(&size, from, sizeof(size));
  return size;
}

absl::Status WrongSize(absl::string_view name, size_t got, size_t want) {
  return absl::InvalidArgumentError(
      absl::StrCat(name, "->struct_size is ", got, ", not ", want,
                   "; set it to sizeof the struct"));
}

}  // namespace

rq_kv_status Report(const absl::Status& status) noexcept {
  if (status.ok()) return RQ_KV_OK;
  const absl::string_view text = status.message();
  const size_t length = std::min(text.size(), kMessageBytes - 1);
  std::memcpy(last_error, text.data(), length);
  last_error[length] = '\0';
  return static_cast<rq_kv_status>(status.code());
}

const char* LastErrorMessage() noexcept { return last_error; }

absl::Status CopyStruct(absl::string_view name, const void* from, void* to,
                        size_t size, size_t min_size) {
  if (from == nullptr) return NullArgument(name);
  const size_t caller_size = StructSize(from);
  if (caller_size < min_size || caller_size > kMaxStructBytes) {
    return WrongSize(name, caller_size, size);
  }
  const uint8_t* bytes = static_cast<const uint8_t*>(from);
  const size_t known = std::min(size, caller_size);
  if (std::any_of(bytes + known, bytes + caller_size,
                  [](uint8_t byte) { return byte != 0; })) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " has fields that this library, of ABI version ",
                     RQ_KV_ABI_VERSION, ", doesn't know"));
  }
  std::memset(to, 0, size);
  std::memcpy(to, from, known);
  return absl::OkStatus();
}

absl::Status CopyOutStruct(absl::string_view name, const void* from, void* to,
                           size_t size) {
  if (to == nullptr) return NullArgument(name);
  const size_t caller_size = StructSize(to);
  if (caller_size < size || caller_size > kMaxStructBytes) {
    return WrongSize(name, caller_size, size);
  }
  std::memcpy(static_cast<uint8_t*>(to) + sizeof(size_t),
              static_cast<const uint8_t*>(from) + sizeof(size_t),
              size - sizeof(size_t));
  return absl::OkStatus();
}

absl::Status CopyText(absl::string_view what, absl::string_view text,
                      char* buffer, size_t size) {
  if (buffer == nullptr) return NullArgument("buffer");
  if (text.size() >= size) {
    return absl::OutOfRangeError(absl::StrCat("the ", what, " needs ",
                                              text.size() + 1,
                                              " bytes, the buffer has ", size));
  }
  std::memcpy(buffer, text.data(), text.size());
  buffer[text.size()] = '\0';
  return absl::OkStatus();
}

absl::Status NullArgument(absl::string_view name) {
  return absl::InvalidArgumentError(absl::StrCat(name, " is null"));
}

}  // namespace ratequant::kv
