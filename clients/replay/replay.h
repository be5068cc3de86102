#ifndef RATEQUANT_CLIENTS_REPLAY_REPLAY_H_
#define RATEQUANT_CLIENTS_REPLAY_REPLAY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "clients/replay/capture_file.h"
#include "ratequant/kv/execution.h"
#include "ratequant/kv/kv_layout.h"

namespace ratequant::replay {

// A bit map to try, and what to call it.
struct ReplayMap {
  std::string name;
  kv::KvCacheConfig config;
};

// How far attention over the cache is from exact attention, of one layer: the
// relative L2 error of one token's output over all its query heads.
struct LayerError {
  double mean = 0;   // over the decoded tokens
  double worst = 0;  // of one of them
};

// What a cache in one map's format did. Speeds are of all layers together.
struct ReplayResult {
  std::string name;
  double code_bits = 0;         // average width
  int64_t allocated_bytes = 0;  // of one whole sequence, as its cache says
  double effective_bits = 0;    // the same per element
  std::vector<LayerError> layers;
  double append_tokens_per_second = 0;  // prefill: quantize and pack
  double attend_tokens_per_second = 0;  // decode attention, one token a step
};

// Runs the runtime's cache on a capture, once for each map: every sequence but
// its last `decode_tokens` tokens is appended as a prefill, those come one by
// one, appended and attended from. Their outputs are compared with attention
// in fp64 over the capture's own K and V, computed once for all maps.
//
// `decode_tokens` is in [1, tokens). INVALID_ARGUMENT for another, for a map
// whose geometry isn't the capture's (naming both), and for formats that the
// runtime doesn't have; DATA_LOSS, naming the place, for values that can't be
// stored or attended to; RESOURCE_EXHAUSTED when memory runs out. Errors name
// the map.
absl::StatusOr<std::vector<ReplayResult>> Replay(
    const CaptureFile& capture, absl::Span<const ReplayMap> maps,
    int64_t decode_tokens, kv::LoopRunner& loops);

}  // namespace ratequant::replay

#endif  // RATEQUANT_CLIENTS_REPLAY_REPLAY_H_
