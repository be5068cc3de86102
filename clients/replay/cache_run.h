#ifndef RATEQUANT_CLIENTS_REPLAY_CACHE_RUN_H_
#define RATEQUANT_CLIENTS_REPLAY_CACHE_RUN_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "clients/replay/capture_file.h"
#include "clients/replay/replay.h"
#include "ratequant/kv/kv_cache.h"

namespace ratequant::replay {

// Exact outputs of a sequence's decoded tokens: for each layer [decode_tokens,
// query_heads, head_dim].
using ExactOutputs = std::vector<std::vector<double>>;

// A cache in one map's format, and what it has done so far. Not thread-safe.
class CacheRun {
 public:
  // `capture` and `loops` must outlive it. Errors of Replay.
  static absl::StatusOr<std::unique_ptr<CacheRun>> Create(
      const CaptureFile& capture, const ReplayMap& map, int decode_tokens,
      kv::LoopRunner& loops);

  // Streams one sequence through the cache.
  absl::Status Run(int sequence, const ExactOutputs& exact);

  // What the sequences so far, one at least, come to.
  ReplayResult Result() const;

 private:
  // Sums over decoded tokens.
  struct ErrorSum {
    double sum = 0;
    double worst = 0;
  };

  CacheRun(const CaptureFile& capture, const ReplayMap& map, int decode_tokens,
           kv::LoopRunner& loops, std::unique_ptr<kv::KvCache> cache,
           std::unique_ptr<kv::KvBatch> batch);

  absl::Status RunSteps(int sequence, kv::KvCache::SequenceId id,
                        const ExactOutputs& exact);
  absl::Status Prefill(int sequence, kv::KvCache::SequenceId id);
  absl::Status Decode(int sequence, int token, int layer,
                      const std::vector<double>& exact);
  absl::Status AddError(int token, int layer, const double* exact);

  const CaptureFile& capture_;
  const ReplayMap map_;
  const int decode_tokens_;
  const kv::Execution on_;
  const std::unique_ptr<kv::KvCache> cache_;
  const std::unique_ptr<kv::KvBatch> batch_;  // one sequence, one token
  std::vector<float> output_;                 // [query_heads, head_dim]
  std::vector<ErrorSum> errors_;              // [layers]
  absl::Duration append_time_;
  absl::Duration attend_time_;
  int64_t allocated_bytes_ = 0;
  int sequences_ = 0;
};

}  // namespace ratequant::replay

#endif  // RATEQUANT_CLIENTS_REPLAY_CACHE_RUN_H_
