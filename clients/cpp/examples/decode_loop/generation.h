#ifndef RATEQUANT_CLIENTS_CPP_EXAMPLES_DECODE_LOOP_GENERATION_H_
#define RATEQUANT_CLIENTS_CPP_EXAMPLES_DECODE_LOOP_GENERATION_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "clients/cpp/examples/decode_loop/step_rows.h"
#include "clients/cpp/loaded_bit_map.h"
#include "clients/replay/capture_file.h"
#include "ratequant/kv/kv_cache.h"

namespace ratequant::examples {

// A request that was served: a sequence of the capture, decoded to its end.
struct Finished {
  int64_t request = 0;
  int sequence = 0;       // of the capture
  std::string etag;       // of the bit map of its cache
  int tokens = 0;         // decoded
  uint64_t checksum = 0;  // FNV-1a of its attention outputs, token by token
};

// A cache in one bit map's format, and the sequences that began with that map
// and finish with it. Not thread-safe.
class Generation {
 public:
  // Room for `max_sequences` whole sequences of `capture`, which must outlive
  // it. INVALID_ARGUMENT when the map isn't for the capture's model;
  // RESOURCE_EXHAUSTED when there is no memory.
  static absl::StatusOr<std::unique_ptr<Generation>> Create(
      const replay::CaptureFile& capture,
      std::shared_ptr<const client::LoadedBitMap> map, int max_sequences,
      int decode_tokens);

  // Starts a request: all but the last `decode_tokens` tokens of the capture's
  // sequence are its prompt, which is prefilled.
  absl::Status Admit(int64_t request, int sequence);

  // Decodes one token of every running sequence, all layers; returns those that
  // are finished now.
  absl::StatusOr<std::vector<Finished>> Step();

  // Sequences that still run.
  int running() const { return static_cast<int>(running_.size()); }

  const client::LoadedBitMap& map() const { return *map_; }

 private:
  struct Running {
    kv::KvCache::SequenceId id = 0;
    int token = 0;  // the next one to decode
    Finished result;
  };

  Generation(const replay::CaptureFile& capture,
             std::shared_ptr<const client::LoadedBitMap> map, int max_sequences,
             int decode_tokens, std::unique_ptr<kv::KvCache> cache,
             std::unique_ptr<kv::KvBatch> batch);

  absl::Status Prefill(kv::KvCache::SequenceId id, int sequence);
  absl::Status DecodeLayer(int layer);
  absl::StatusOr<std::vector<Finished>> Retire();

  const replay::CaptureFile& capture_;
  const std::shared_ptr<const client::LoadedBitMap> map_;
  const int decode_tokens_;
  const std::unique_ptr<kv::KvCache> cache_;
  const std::unique_ptr<kv::KvBatch> batch_;
  std::vector<Running> running_;  // row i of a step is running_[i]'s
  StepRows keys_, values_, queries_;
  std::vector<float> output_;  // [query_heads, max_sequences, head_dim]
  const int max_sequences_;
};

}  // namespace ratequant::examples

#endif  // RATEQUANT_CLIENTS_CPP_EXAMPLES_DECODE_LOOP_GENERATION_H_
