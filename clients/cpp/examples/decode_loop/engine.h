#ifndef RATEQUANT_CLIENTS_CPP_EXAMPLES_DECODE_LOOP_ENGINE_H_
#define RATEQUANT_CLIENTS_CPP_EXAMPLES_DECODE_LOOP_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "clients/cpp/examples/decode_loop/generation.h"
#include "clients/cpp/loaded_bit_map.h"
#include "clients/replay/capture_file.h"

namespace ratequant::examples {

struct EngineOptions {
  int concurrency = 4;     // requests that decode at the same time
  int decode_tokens = 16;  // of each request; less than the capture's tokens
  int64_t requests = 0;    // to serve in all; 0: no end
};

// What one step did.
struct StepResult {
  std::vector<Finished> finished;
  // The map that new requests use from this step on; null: as before.
  std::shared_ptr<const client::LoadedBitMap> adopted;
  // Why a new map was not adopted.
  absl::Status refused;
};

// A small inference engine: continuous batching over the requests of a capture,
// whose sequences it serves in turn, again and again. Between two steps it asks
// for a new bit map. New requests get a cache in the new map's format; running
// ones finish on the cache they began with, which goes when the last of them
// is done. Not thread-safe.
class Engine {
 public:
  // The newest map since the last call, or null: BitMapSource::TakeUpdate.
  using TakeUpdate =
      std::function<std::shared_ptr<const client::LoadedBitMap>()>;

  // `capture` must outlive it. INVALID_ARGUMENT for options out of range, and
  // the errors of Generation::Create with `first`.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(
      const replay::CaptureFile& capture, const EngineOptions& options,
      std::shared_ptr<const client::LoadedBitMap> first,
      TakeUpdate take_update);

  // Changes the map if there is a new one, admits requests, and decodes one
  // token of each. A map that no cache can be made from is refused, and the one
  // before stays.
  absl::StatusOr<StepResult> Step();

  // Whether all requests are served.
  bool done() const {
    return options_.requests > 0 && served_ == options_.requests;
  }

  // Caches in use, one for each map that something still runs on.
  int generations() const { return static_cast<int>(generations_.size()); }

 private:
  Engine(const replay::CaptureFile& capture, const EngineOptions& options,
         TakeUpdate take_update)
      : capture_(capture),
        options_(options),
        take_update_(std::move(take_update)) {}

  absl::Status Adopt(std::shared_ptr<const client::LoadedBitMap> map);
  absl::Status AdmitRequests();
  void DropIdle();

  const replay::CaptureFile& capture_;
  const EngineOptions options_;
  const TakeUpdate take_update_;
  std::vector<std::unique_ptr<Generation>> generations_;  // the newest last
  int64_t admitted_ = 0;
  int64_t served_ = 0;
};

}  // namespace ratequant::examples

#endif  // RATEQUANT_CLIENTS_CPP_EXAMPLES_DECODE_LOOP_ENGINE_H_
