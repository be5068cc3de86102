// Sharing and moving sequences over the C ABI.
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/c_api/boundary.h"
#include "kernels/c_api/handles.h"
#include "ratequant/kv/c_api.h"

namespace kv = ratequant::kv;

namespace ratequant::kv {
namespace {

// As WithCacheOn for `body(...) -> absl::StatusOr<int64_t>` with a result.
template <typename Body>
rq_kv_status ReadIntoOn(int64_t* out, rq_kv_cache cache,
                        const rq_kv_execution* on, const Body& body) noexcept {
  return WithCacheOn(
      cache, on, [&](KvCache& found, const Execution& given) -> absl::Status {
        if (out == nullptr) return NullArgument("out");
        const absl::StatusOr<int64_t> value = body(found, given);
        if (value.ok()) *out = *value;
        return value.status();
      });
}

}  // namespace
}  // namespace ratequant::kv

rq_kv_status rq_kv_sequence_fork(rq_kv_cache cache, int64_t parent,
                                 int64_t tokens, const rq_kv_execution* on,
                                 int64_t* out) {
  return kv::ReadIntoOn(out, cache, on,
                        [&](kv::KvCache& found, const kv::Execution& given) {
                          return found.ForkSequence(parent, tokens, given);
                        });
}

rq_kv_status rq_kv_sequence_truncate(rq_kv_cache cache, int64_t sequence,
                                     int64_t tokens) {
  return kv::WithCache(cache, [&](kv::KvCache& found) {
    return found.TruncateSequence(sequence, tokens);
  });
}

rq_kv_status rq_kv_saved_bytes(rq_kv_cache cache, int64_t sequence,
                               int64_t* out) {
  return kv::ReadInto(out, cache, [&](kv::KvCache& found) {
    return found.SavedBytes(sequence);
  });
}

rq_kv_status rq_kv_sequence_save(rq_kv_cache cache, int64_t sequence,
                                 void* buffer, size_t buffer_size,
                                 const rq_kv_execution* on) {
  return kv::WithCacheOn(
      cache, on,
      [&](kv::KvCache& found, const kv::Execution& given) -> absl::Status {
        if (buffer == nullptr) return kv::NullArgument("buffer");
        return found.SaveSequence(
            sequence, {static_cast<uint8_t*>(buffer), buffer_size}, given);
      });
}

rq_kv_status rq_kv_sequence_load(rq_kv_cache cache, const void* buffer,
                                 size_t buffer_size, const rq_kv_execution* on,
                                 int64_t* out) {
  return kv::ReadIntoOn(
      out, cache, on,
      [&](kv::KvCache& found,
          const kv::Execution& given) -> absl::StatusOr<int64_t> {
        if (buffer == nullptr) return kv::NullArgument("buffer");
        return found.LoadSequence(
            {static_cast<const uint8_t*>(buffer), buffer_size}, given);
      });
}

rq_kv_status rq_kv_copy_pages_out(rq_kv_cache cache, int64_t sequence,
                                  int32_t layer, int64_t first, int64_t count,
                                  void* buffer, size_t buffer_size,
                                  const rq_kv_execution* on) {
  return kv::WithCacheOn(
      cache, on,
      [&](kv::KvCache& found, const kv::Execution& given) -> absl::Status {
        if (buffer == nullptr) return kv::NullArgument("buffer");
        return found.CopyPagesOut(sequence, layer, first, count,
                                  {static_cast<uint8_t*>(buffer), buffer_size},
                                  given);
      });
}

rq_kv_status rq_kv_copy_pages_in(rq_kv_cache cache, int64_t sequence,
                                 int32_t layer, int64_t first, int64_t count,
                                 const void* buffer, size_t buffer_size,
                                 const rq_kv_execution* on) {
  return kv::WithCacheOn(
      cache, on,
      [&](kv::KvCache& found, const kv::Execution& given) -> absl::Status {
        if (buffer == nullptr) return kv::NullArgument("buffer");
        return found.CopyPagesIn(
            sequence, layer, first, count,
            {static_cast<const uint8_t*>(buffer), buffer_size}, given);
      });
}
