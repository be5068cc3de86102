#ifndef RATEQUANT_CLIENTS_CLI_REPLAY_MAPS_H_
#define RATEQUANT_CLIENTS_CLI_REPLAY_MAPS_H_

#include <string>

#include "absl/status/statusor.h"
#include "clients/replay/replay.h"
#include "ratequant/kv/kv_layout.h"

namespace ratequant::cli {

// The map in a file that `ratequant bitmap get --json` printed, named by its
// path. INVALID_ARGUMENT when it isn't one, NOT_FOUND, PERMISSION_DENIED.
absl::StatusOr<replay::ReplayMap> ReadMapFile(const std::string& path);

// The map of `text`, "QUANTIZER:WIDTH" as in "kivi:4" or
// "turboquant:seed=7:3", or "fp16", for every group of a model. Sinks and
// window are left at their defaults. INVALID_ARGUMENT says what isn't
// understood and what is.
absl::StatusOr<replay::ReplayMap> UniformMap(const std::string& text,
                                             const kv::KvGeometry& geometry);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_REPLAY_MAPS_H_
