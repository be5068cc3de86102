#ifndef RATEQUANT_KERNELS_C_API_BOUNDARY_H_
#define RATEQUANT_KERNELS_C_API_BOUNDARY_H_

#include <cstddef>
#include <exception>
#include <new>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "ratequant/kv/c_api.h"

namespace ratequant::kv {

// Keeps the text of a failure for the calling thread and returns its code.
rq_kv_status Report(const absl::Status& status) noexcept;

// The text of the calling thread's last failure.
const char* LastErrorMessage() noexcept;

// Runs the body of a C function, `body() -> absl::Status`: exceptions, which
// only running out of memory should cause here, become a status too.
template <typename Body>
rq_kv_status AtBoundary(const Body& body) noexcept {
  try {
    return Report(body());
  } catch (const std::bad_alloc&) {
    return Report(absl::ResourceExhaustedError("out of memory"));
  } catch (const std::exception& e) {
    return Report(absl::InternalError(e.what()));
  } catch (...) {
    return Report(absl::InternalError("unknown exception"));
  }
}

// Checks a caller's `struct_size` and copies what this library knows of the
// struct, `size` bytes. A longer struct comes from a newer caller and is taken
// when the rest of it is zero; a shorter one from an older caller, of at least
// `min_size`, is taken with zeros for the rest.
absl::Status CopyStruct(absl::string_view name, const void* from, void* to,
                        size_t size, size_t min_size);

// `min_size`: what the struct had in its first version.
template <typename T>
absl::Status CopyIn(absl::string_view name, const T* from, T* to,
                    size_t min_size = sizeof(T)) {
  return CopyStruct(name, from, to, sizeof(T), min_size);
}

// The same check for a struct to be filled in: copies `from` into what the
// caller has room for, leaving its struct_size.
absl::Status CopyOutStruct(absl::string_view name, const void* from, void* to,
                           size_t size);

template <typename T>
absl::Status CopyOut(absl::string_view name, const T& from, T* to) {
  return CopyOutStruct(name, &from, to, sizeof(T));
}

// Writes `text` with a closing 0 to buffer[size]; OUT_OF_RANGE when it doesn't
// fit.
absl::Status CopyText(absl::string_view what, absl::string_view text,
                      char* buffer, size_t size);

absl::Status NullArgument(absl::string_view name);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_C_API_BOUNDARY_H_
