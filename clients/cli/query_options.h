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

// What a policy consists of, but for its strategy. What isn't given is left for
// the server to choose.
struct PolicyOptions {
  v1::Policy::Objective objective = v1::Policy::OBJECTIVE_UNSPECIFIED;
  bool separate = false;
  uint32_t min_width = 0;
  uint32_t max_width = 0;
  std::vector<uint32_t> widths;
  uint32_t key_min_width = 0;
  uint32_t value_min_width = 0;
  std::vector<std::string> rules;
  uint32_t max_formats = 0;
};

// What `bitmap get` and `curve` ask alike. A value that isn't given is left for
// the server to choose; 0 for sinks and window is a value.
struct QueryOptions : PolicyOptions {
  std::string model;
  std::string calibration;
  std::vector<std::string> quantizers;
  std::string policy;  // a stored one, instead
  std::optional<uint32_t> sinks;
  std::optional<uint32_t> window;
  uint32_t context = 0;
};

// Add the options to a verb. `options` must outlive it.
void AddPolicyOptions(CLI::App& verb, PolicyOptions* options);
void AddStrategyOption(CLI::App& verb, v1::Policy::Strategy* strategy);
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

// Writes the options into a policy; a usage error names a rule that isn't
// understood.
absl::Status FillPolicy(const PolicyOptions& options, v1::Policy& policy);

// Writes the options into a GetBitMapRequest or GetRateDistortionCurveRequest.
// May ask the server for a calibration whose id is only begun.
template <typename Request>
absl::Status FillQuery(const QueryOptions& options, client::Client& client,
                       Request& request) {
  request.set_model(client::ModelName(options.model));
  absl::Status quantizers = FillQuantizers(options.quantizers, request);
  if (!quantizers.ok()) return quantizers;
  absl::Status policy = FillPolicy(options, *request.mutable_policy());
  if (!policy.ok()) return policy;
  if (!options.policy.empty()) {
    request.set_policy_name(client::PolicyName(options.policy));
  }
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
