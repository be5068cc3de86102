#ifndef RATEQUANT_CLIENTS_CLI_BIT_MAP_OPTIONS_H_
#define RATEQUANT_CLIENTS_CLI_BIT_MAP_OPTIONS_H_

#include <optional>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "clients/cli/query_options.h"
#include "ratequant/v1/allocation_service.pb.h"

namespace ratequant::cli {

// The query of `bitmap get` and `watch`.
struct BitMapOptions {
  QueryOptions query;
  v1::Policy::Strategy strategy = v1::Policy::STRATEGY_UNSPECIFIED;
  std::optional<double> effective_bits;
  std::optional<double> code_bits;
  std::optional<double> bytes_per_token;
  std::optional<double> max_loss_increase;
  bool require_evaluated = false;
  std::optional<double> max_perplexity_increase;
  bool keep_measured_worse = false;
  std::string known_etag;
  std::string out;  // file for the map; empty: none
};

// Adds the options to a verb. `options` must outlive it.
void AddBitMapOptions(CLI::App& verb, BitMapOptions* options);

// For a verb's callback: throws CLI::ValidationError unless one budget is
// given.
void CheckOneBudget(const BitMapOptions& options);

// Puts the map of an answer, in JSON, at the file that the options name, whole
// or not at all; does nothing without one, and when the map is unchanged.
absl::Status WriteMap(const BitMapOptions& options,
                      const v1::GetBitMapResponse& answer);

// Writes the options into a request. May ask the server for a calibration whose
// id is only begun.
absl::Status FillBitMapRequest(const BitMapOptions& options,
                               client::Client& client,
                               v1::GetBitMapRequest& request);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_BIT_MAP_OPTIONS_H_
