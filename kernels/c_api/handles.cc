#include "kernels/c_api/handles.h"

#include "absl/strings/str_cat.h"

namespace ratequant::kv {

// None is ever destroyed: threads may still be in a call while the process
// exits.
HandleRegistry<KvCache>& Caches() {
  static auto* caches = new HandleRegistry<KvCache>();
  return *caches;
}

HandleRegistry<OwnedBatch>& Batches() {
  static auto* batches = new HandleRegistry<OwnedBatch>();
  return *batches;
}

HandleRegistry<LoopRunner>& Threads() {
  static auto* threads = new HandleRegistry<LoopRunner>();
  return *threads;
}

absl::Status UnknownCache(rq_kv_cache cache) {
  return absl::NotFoundError(absl::StrCat("no cache ", cache));
}

absl::StatusOr<OwnedExecution> FromC(const rq_kv_execution* on) {
  OwnedExecution out;
  if (on == nullptr) return out;
  rq_kv_execution in;
  absl::Status status = CopyIn("on", on, &in);
  if (!status.ok()) return status;
  out.on.stream = in.stream;
  if (in.threads != 0) {
    out.threads = Threads().Find(in.threads);
    if (out.threads == nullptr) {
      return absl::NotFoundError(absl::StrCat("no threads ", in.threads));
    }
    out.on.loops = out.threads.get();
  }
  return out;
}

}  // namespace ratequant::kv
