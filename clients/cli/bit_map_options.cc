#include "clients/cli/bit_map_options.h"

#include "absl/strings/str_cat.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/json_output.h"
#include "clients/cli/value_checks.h"
#include "clients/cpp/durable_file.h"

namespace ratequant::cli {
namespace {

void AddBudgetOptions(CLI::App& verb, BitMapOptions* options) {
  const char* group = "Budget (exactly one)";
  verb.add_option("--effective-bits", options->effective_bits,
                  "Stored bits per element, everything counted: scales, zero "
                  "points, padding, sinks and window")
      ->option_text("BITS")
      ->check(Number())
      ->group(group);
  verb.add_option("--code-bits", options->code_bits,
                  "Average code width; overhead isn't counted, so it needs one "
                  "--quantizer")
      ->option_text("BITS")
      ->check(Number())
      ->group(group);
  verb.add_option("--bytes-per-token", options->bytes_per_token,
                  "Stored bytes per token and sequence, everything counted")
      ->option_text("BYTES")
      ->check(Number())
      ->group(group);
  verb.add_option("--max-loss-increase", options->max_loss_increase,
                  "Largest predicted loss increase, in nats per token: the "
                  "cheapest map below it")
      ->option_text("NATS")
      ->check(Number())
      ->group(group);
}

void AddEvidenceOptions(CLI::App& verb, BitMapOptions* options) {
  verb.add_flag("--require-evaluated", options->require_evaluated,
                "Only a map whose perplexity was measured");
  verb.add_option("--max-perplexity-increase", options->max_perplexity_increase,
                  "Only a map that measured at most this share above full "
                  "precision: 0.02 is 2%")
      ->option_text("SHARE")
      ->check(Number());
  verb.add_flag("--keep-measured-worse", options->keep_measured_worse,
                "The map even when it measured worse than uniform, which else "
                "takes its place");
}

void FillBudget(const BitMapOptions& options, v1::Budget& budget) {
  if (options.effective_bits.has_value()) {
    budget.set_effective_bits(*options.effective_bits);
  } else if (options.code_bits.has_value()) {
    budget.set_code_bits(*options.code_bits);
  } else if (options.bytes_per_token.has_value()) {
    budget.set_bytes_per_token(*options.bytes_per_token);
  } else if (options.max_loss_increase.has_value()) {
    budget.set_max_loss_increase(*options.max_loss_increase);
  }
}

}  // namespace

void AddBitMapOptions(CLI::App& verb, BitMapOptions* options) {
  AddBudgetOptions(verb, options);
  AddQueryOptions(verb, &options->query);
  AddStrategyOption(verb, &options->strategy);
  AddEvidenceOptions(verb, options);
  verb.add_option("--known-etag", options->known_etag,
                  "Id of a map you have: answers 'unchanged' when it still is "
                  "the best")
      ->option_text("ID");
  verb.add_option("--out", options->out,
                  "Also put the map there, in JSON; who reads the file finds a "
                  "whole map at any time")
      ->option_text("FILE");
}

absl::Status WriteMap(const BitMapOptions& options,
                      const v1::GetBitMapResponse& answer) {
  if (options.out.empty() || answer.unchanged()) return absl::OkStatus();
  absl::StatusOr<std::string> json = ToJson(answer.bit_map());
  if (!json.ok()) return json.status();
  const absl::Status written = client::ReplaceFile(options.out, *json);
  if (written.ok()) return written;
  return UsageError(absl::StrCat("--out ", options.out, ": ",
                                 std::string(written.message())));
}

void CheckOneBudget(const BitMapOptions& options) {
  const int given = options.effective_bits.has_value() +
                    options.code_bits.has_value() +
                    options.bytes_per_token.has_value() +
                    options.max_loss_increase.has_value();
  if (given == 1) return;
  throw CLI::ValidationError(
      "give exactly one budget: --effective-bits, --code-bits, "
      "--bytes-per-token or --max-loss-increase");
}

absl::Status FillBitMapRequest(const BitMapOptions& options,
                               client::Client& client,
                               v1::GetBitMapRequest& request) {
  absl::Status filled = FillQuery(options.query, client, request);
  if (!filled.ok()) return filled;
  FillBudget(options, *request.mutable_budget());
  v1::Policy& policy = *request.mutable_policy();
  policy.set_strategy(options.strategy);
  policy.set_require_evaluated(options.require_evaluated);
  policy.set_keep_measured_worse(options.keep_measured_worse);
  if (options.max_perplexity_increase.has_value()) {
    policy.set_max_perplexity_increase(*options.max_perplexity_increase);
  }
  request.set_known_etag(options.known_etag);
  return absl::OkStatus();
}

}  // namespace ratequant::cli
