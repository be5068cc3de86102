#ifndef RATEQUANT_CLIENTS_CLI_QUERY_OPTIONS_H_
#define RATEQUANT_CLIENTS_CLI_QUERY_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/find_calibration.h"
#include "clients/cli/rule_text.h"
#include "clients/cpp/client.h"
#include "clients/cpp/quantizer_text.h"
#include "clients/cpp/resource_names.h"
#include "ratequant/v1/bit_map.pb.h"

namespace ratequant::cli {

// What `bitmap get` and `curve` ask alike. A value that isn't given is left for
// the server to choose; 0 for sinks and window is a value.
struct QueryOptions {
  std::string model;
  std::string calibration;
  std::vector<std::string> quantizers;
  v1::Policy::Objective objective = v1::Policy::OBJECTIVE_UNSPECIFIED;
  bool separate = false;
  uint32_t min_width = 0;
  uint32_t max_width = 0;
  std::vector<uint32_t> widths;
  uint32_t key_min_width = 0;
  uint32_t value_min_width = 0;
  std::vector<std::string> rules;
  std::optional<uint32_t> sinks;
  std::optional<uint32_t> window;
  uint32_t context = 0;
};

// Adds the options to a verb. `options` must outlive it.
void AddQueryOptions(CLI::App& verb, QueryOptions* options);

// Adds --quantizer, also for `calibrate`.
void AddQuantizerOption(CLI::App& verb, std::vector<std::string>* quantizers,
                        const std::string& description);

// Parses quantizers into a request; a usage error names what isn't known.
template <typename Message>
absl::Status FillQuantizers(const std::vector<std::string>& texts,
                            Message& message) {
  for (const std::string& text : texts) {
    auto quantizer = client::QuantizerFromText(text);
    if (!quantizer.ok()) return UsageError(quantizer.status().message());
    *message.add_quantizers() = *std::move(quantizer);
  }
  return absl::OkStatus();
}

// Writes the options that narrow single groups into a policy; a usage error
// names a rule that isn't understood.
absl::Status FillGroupBounds(const QueryOptions& options, v1::Policy& policy);

// Writes the options into a GetBitMapRequest or GetRateDistortionCurveRequest.
// May ask the server for a calibration whose id is only begun.
template <typename Request>
absl::Status FillQuery(const QueryOptions& options, client::Client& client,
                       Request& request) {
  request.set_model(client::ModelName(options.model));
  absl::Status quantizers = FillQuantizers(options.quantizers, request);
  if (!quantizers.ok()) return quantizers;
  v1::Policy& policy = *request.mutable_policy();
  policy.set_objective(options.objective);
  policy.set_separate_key_value(options.separate);
  policy.set_min_width(options.min_width);
  policy.set_max_width(options.max_width);
  absl::Status bounds = FillGroupBounds(options, policy);
  if (!bounds.ok()) return bounds;
  v1::CacheConfig& cache = *request.mutable_cache();
  if (options.sinks.has_value()) cache.set_sink_tokens(*options.sinks);
  if (options.window.has_value()) cache.set_window(*options.window);
  cache.set_context_tokens(options.context);
  if (options.calibration.empty() || options.calibration == "latest") {
    return absl::OkStatus();
  }
  auto name = FindCalibration(client, options.model, options.calibration);
  if (!name.ok()) return name.status();
  request.set_calibration(*std::move(name));
  return absl::OkStatus();
}

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_QUERY_OPTIONS_H_
