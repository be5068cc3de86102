// Steps, threads and single appends of the C ABI.
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "kernels/c_api/boundary.h"
#include "kernels/c_api/convert.h"
#include "kernels/c_api/handles.h"
#include "ratequant/kv/c_api.h"

namespace ratequant::kv {
namespace {

// More than machines have cores, few enough that a wrong number is one.
constexpr int32_t kMaxThreads = 4096;

// Runs `body(OwnedBatch&, const Execution&) -> absl::Status`.
template <typename Body>
rq_kv_status WithBatch(rq_kv_batch handle, const rq_kv_execution* on,
                       const Body& body) noexcept {
  return AtBoundary([&]() -> absl::Status {
    const std::shared_ptr<OwnedBatch> batch = Batches().Find(handle);
    if (batch == nullptr) {
      return absl::NotFoundError(absl::StrCat("no batch ", handle));
    }
    const absl::StatusOr<OwnedExecution> given = FromC(on);
    if (!given.ok()) return given.status();
    return body(*batch, given->on);
  });
}

absl::StatusOr<std::vector<BatchEntry>> Entries(
    const rq_kv_batch_entry* entries, size_t count) {
  if (entries == nullptr && count > 0) return NullArgument("entries");
  std::vector<BatchEntry> out;
  for (size_t i = 0; i < count; ++i) {
    if (entries[i].reserved != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "entries[", i, "].reserved is ", entries[i].reserved, ", not 0"));
    }
    out.push_back({entries[i].sequence, entries[i].tokens});
  }
  return out;
}

}  // namespace
}  // namespace ratequant::kv

namespace kv = ratequant::kv;

rq_kv_status rq_kv_threads_create(int32_t threads, rq_kv_threads* out) {
  return kv::AtBoundary([&]() -> absl::Status {
    if (out == nullptr) return kv::NullArgument("out");
    if (threads < 0 || threads > kv::kMaxThreads) {
      return absl::InvalidArgumentError(
          absl::StrCat("threads ", threads, " is not supported; supported are ",
                       "1 to ", kv::kMaxThreads, ", and 0 for one per core"));
    }
    *out = kv::Threads().Add(kv::MakeThreadPool(threads));
    return absl::OkStatus();
  });
}

rq_kv_status rq_kv_threads_destroy(rq_kv_threads threads) {
  return kv::AtBoundary([&]() -> absl::Status {
    if (kv::Threads().Remove(threads) == nullptr) {
      return absl::NotFoundError(absl::StrCat("no threads ", threads));
    }
    return absl::OkStatus();
  });
}

rq_kv_status rq_kv_batch_create(rq_kv_cache cache, int32_t max_entries,
                                int32_t max_tokens, rq_kv_batch* out) {
  return kv::AtBoundary([&]() -> absl::Status {
    if (out == nullptr) return kv::NullArgument("out");
    auto owned = std::make_shared<kv::OwnedBatch>();
    owned->cache = kv::Caches().Find(cache);
    if (owned->cache == nullptr) return kv::UnknownCache(cache);
    absl::StatusOr<std::unique_ptr<kv::KvBatch>> batch =
        owned->cache->MakeBatch(max_entries, max_tokens);
    if (!batch.ok()) return batch.status();
    owned->batch = *std::move(batch);
    *out = kv::Batches().Add(std::move(owned));
    return absl::OkStatus();
  });
}

rq_kv_status rq_kv_batch_destroy(rq_kv_batch batch) {
  return kv::AtBoundary([&]() -> absl::Status {
    if (kv::Batches().Remove(batch) == nullptr) {
      return absl::NotFoundError(absl::StrCat("no batch ", batch));
    }
    return absl::OkStatus();
  });
}

rq_kv_status rq_kv_prepare(rq_kv_batch batch, const rq_kv_batch_entry* entries,
                           size_t num_entries, const rq_kv_execution* on) {
  return kv::WithBatch(
      batch, on,
      [&](kv::OwnedBatch& found, const kv::Execution& given) -> absl::Status {
        absl::StatusOr<std::vector<kv::BatchEntry>> of =
            kv::Entries(entries, num_entries);
        if (!of.ok()) return of.status();
        return found.cache->Prepare(*of, *found.batch, given);
      });
}

rq_kv_status rq_kv_append_step(rq_kv_batch batch, int32_t layer,
                               const rq_kv_const_tensor* keys,
                               const rq_kv_const_tensor* values,
                               const rq_kv_execution* on) {
  return kv::WithBatch(
      batch, on,
      [&](kv::OwnedBatch& found, const kv::Execution& given) -> absl::Status {
        absl::StatusOr<kv::ConstHeads> k = kv::FromC("keys", keys);
        if (!k.ok()) return k.status();
        absl::StatusOr<kv::ConstHeads> v = kv::FromC("values", values);
        if (!v.ok()) return v.status();
        return found.cache->Append(*found.batch, layer, *k, *v, given);
      });
}

rq_kv_status rq_kv_attend(rq_kv_batch batch, int32_t layer,
                          const rq_kv_attention_params* params,
                          const rq_kv_const_tensor* queries,
                          const rq_kv_tensor* out, const rq_kv_execution* on) {
  return kv::WithBatch(
      batch, on,
      [&](kv::OwnedBatch& found, const kv::Execution& given) -> absl::Status {
        absl::StatusOr<kv::AttentionParams> of = kv::FromC(params);
        if (!of.ok()) return of.status();
        absl::StatusOr<kv::ConstHeads> q = kv::FromC("queries", queries);
        if (!q.ok()) return q.status();
        absl::StatusOr<kv::MutableHeads> o = kv::FromC("out", out);
        if (!o.ok()) return o.status();
        return found.cache->Attend(*found.batch, layer, *of, *q, *o, given);
      });
}

rq_kv_status rq_kv_mark_appended(rq_kv_batch batch) {
  return kv::WithBatch(batch, nullptr,
                       [](kv::OwnedBatch& found, const kv::Execution&) {
                         return found.cache->MarkAppended(*found.batch);
                       });
}

rq_kv_status rq_kv_append_on(rq_kv_cache cache, int64_t sequence, int32_t layer,
                             int64_t tokens, const rq_kv_const_tensor* keys,
                             const rq_kv_const_tensor* values,
                             const rq_kv_execution* on) {
  return kv::WithCacheOn(
      cache, on,
      [&](kv::KvCache& found, const kv::Execution& given) -> absl::Status {
        absl::StatusOr<kv::ConstHeads> k = kv::FromC("keys", keys);
        if (!k.ok()) return k.status();
        absl::StatusOr<kv::ConstHeads> v = kv::FromC("values", values);
        if (!v.ok()) return v.status();
        return found.Append(sequence, layer, tokens, *k, *v, given);
      });
}

rq_kv_status rq_kv_append(rq_kv_cache cache, int64_t sequence, int32_t layer,
                          int64_t tokens, const rq_kv_const_tensor* keys,
                          const rq_kv_const_tensor* values) {
  return rq_kv_append_on(cache, sequence, layer, tokens, keys, values, nullptr);
}

rq_kv_status rq_kv_gather_on(rq_kv_cache cache, int64_t sequence, int32_t layer,
                             int64_t first, int64_t count,
                             const rq_kv_tensor* keys,
                             const rq_kv_tensor* values,
                             const rq_kv_execution* on) {
  return kv::WithCacheOn(
      cache, on,
      [&](kv::KvCache& found, const kv::Execution& given) -> absl::Status {
        absl::StatusOr<kv::MutableHeads> k = kv::FromC("keys", keys);
        if (!k.ok()) return k.status();
        absl::StatusOr<kv::MutableHeads> v = kv::FromC("values", values);
        if (!v.ok()) return v.status();
        return found.Gather(sequence, layer, first, count, *k, *v, given);
      });
}

rq_kv_status rq_kv_gather(rq_kv_cache cache, int64_t sequence, int32_t layer,
                          int64_t first, int64_t count,
                          const rq_kv_tensor* keys,
                          const rq_kv_tensor* values) {
  return rq_kv_gather_on(cache, sequence, layer, first, count, keys, values,
                         nullptr);
}

rq_kv_status rq_kv_check_faults(rq_kv_cache cache, const rq_kv_execution* on) {
  return kv::WithCacheOn(cache, on,
                         [](kv::KvCache& found, const kv::Execution& given) {
                           return found.CheckFaults(given);
                         });
}
