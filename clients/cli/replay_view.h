#ifndef RATEQUANT_CLIENTS_CLI_REPLAY_VIEW_H_
#define RATEQUANT_CLIENTS_CLI_REPLAY_VIEW_H_

#include <cstdint>
#include <string>

#include "absl/types/span.h"
#include "clients/cli/text_style.h"
#include "clients/replay/replay.h"

namespace ratequant::cli {

// What a replay was run on.
struct ReplayHeading {
  replay::CaptureInfo capture;
  int64_t decode_tokens = 0;
  int threads = 0;
};

// The results for people, a line a map; with `per_layer` the errors of every
// layer below.
std::string RenderReplay(const ReplayHeading& heading,
                         absl::Span<const replay::ReplayResult> results,
                         bool per_layer, const TextStyle& style);

// The same for programs: JSON that ends in a newline.
std::string ReplayJson(const ReplayHeading& heading,
                       absl::Span<const replay::ReplayResult> results);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_REPLAY_VIEW_H_
