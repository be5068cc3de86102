#include "clients/replay/replay.h"

#include <memory>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "clients/replay/cache_run.h"
#include "kernels/reference/reference_attention.h"

namespace ratequant::replay {
namespace {

// One sequence's exact outputs; layers are computed in parallel.
ExactOutputs ComputeExact(const CaptureFile& capture, int sequence,
                          int decode_tokens, kv::LoopRunner& loops) {
  const CaptureInfo& info = capture.info();
  const int prefill = info.tokens - decode_tokens;
  // Positions [begin, begin + count) are rows from first_row on.
  const kv::SequenceStep step = {
      .begin = prefill, .count = decode_tokens, .first_row = prefill};
  ExactOutputs exact(info.geometry.layers);
  loops.Run(info.geometry.layers, [&](int layer) {
    exact[layer] = kv::ReferenceAttention(
        info.attention[layer], info.geometry.kv_heads, info.geometry.head_dim,
        step, capture.keys(sequence, layer), capture.values(sequence, layer),
        capture.queries(sequence, layer));
  });
  return exact;
}

absl::Status Naming(const ReplayMap& map, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(map.name, ": ", status.message()));
}

}  // namespace

absl::StatusOr<std::vector<ReplayResult>> Replay(
    const CaptureFile& capture, absl::Span<const ReplayMap> maps,
    int64_t decode_tokens, kv::LoopRunner& loops) {
  const CaptureInfo& info = capture.info();
  if (decode_tokens < 1 || decode_tokens >= info.tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("can't decode ", decode_tokens, " tokens of sequences of ",
                     info.tokens, "; supported are 1 to ", info.tokens - 1));
  }
  std::vector<std::unique_ptr<CacheRun>> runs;
  for (const ReplayMap& map : maps) {
    auto run = CacheRun::Create(capture, map, decode_tokens, loops);
    if (!run.ok()) return Naming(map, run.status());
    runs.push_back(*std::move(run));
  }
  for (int sequence = 0; sequence < info.sequences; ++sequence) {
    const ExactOutputs exact =
        ComputeExact(capture, sequence, decode_tokens, loops);
    for (size_t i = 0; i < runs.size(); ++i) {
      const absl::Status status = runs[i]->Run(sequence, exact);
      if (!status.ok()) return Naming(maps[i], status);
    }
  }
  std::vector<ReplayResult> results;
  for (const auto& run : runs) results.push_back(run->Result());
  return results;
}

}  // namespace ratequant::replay
