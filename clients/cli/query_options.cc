#include "clients/cli/query_options.h"

#include "clients/cli/value_checks.h"

namespace ratequant::cli {

void AddQuantizerOption(CLI::App& verb, std::vector<std::string>* quantizers,
                        const std::string& description) {
  verb.add_option("--quantizer", *quantizers, description)
      ->option_text("NAME[:PARAMETER=VALUE,...] ...");
}

void AddPolicyOptions(CLI::App& verb, PolicyOptions* options) {
  verb.add_option(
          "--objective", options->objective,
          "What is minimised: loss-projected (default), attention-output "
          "(calibrated with --attention-output), measured, or paper "
          "(one quantizer)")
      ->transform(Choice({{"loss-projected", v1::Policy::LOSS_PROJECTED},
                          {"attention-output", v1::Policy::ATTENTION_OUTPUT},
                          {"measured", v1::Policy::MEASURED},
                          {"paper", v1::Policy::PAPER}}))
      ->option_text("NAME");
  verb.add_flag("--separate", options->separate,
                "Give K and V each the budget instead of sharing it");
  verb.add_option("--min-width", options->min_width,
                  "Smallest width of a group in bits")
      ->check(WholeNumber())
      ->option_text("BITS");
  verb.add_option("--max-width", options->max_width,
                  "Largest width of a group in bits")
      ->check(WholeNumber())
      ->option_text("BITS");
  verb.add_option("--widths", options->widths,
                  "The only widths a group may have, such as 2,4,8")
      ->delimiter(',')
      ->check(WholeNumber())
      ->option_text("BITS,...");
  verb.add_option("--key-min-width", options->key_min_width,
                  "Smallest width of a K group in bits")
      ->check(WholeNumber())
      ->option_text("BITS");
  verb.add_option("--value-min-width", options->value_min_width,
                  "Smallest width of a V group in bits")
      ->check(WholeNumber())
      ->option_text("BITS");
  verb.add_option("--rule", options->rules,
                  "Bounds for the groups it matches, such as layer=0,width=8 "
                  "(16: fp16) or layer=3,head=1,tensor=key,min=4,max=8; may be "
                  "repeated")
      ->option_text("PART=VALUE,... ...");
  verb.add_option("--max-formats", options->max_formats,
                  "Most different pairs of quantizer and width in one layer, "
                  "1 to 4")
      ->check(WholeNumber())
      ->option_text("COUNT");
}

void AddStrategyOption(CLI::App& verb, v1::Policy::Strategy* strategy) {
  verb.add_option("--strategy", *strategy,
                  "allocated (default), or a baseline: uniform, "
                  "k-ceil-v-floor, layer-wise")
      ->transform(Choice({{"allocated", v1::Policy::ALLOCATED},
                          {"uniform", v1::Policy::UNIFORM},
                          {"k-ceil-v-floor", v1::Policy::K_CEIL_V_FLOOR},
                          {"layer-wise", v1::Policy::LAYER_WISE}}))
      ->option_text("NAME");
}

void AddQueryOptions(CLI::App& verb, QueryOptions* options) {
  verb.add_option("--model", options->model,
                  "The model: an id or a hub name such as Qwen/Qwen3-8B")
      ->required()
      ->option_text("MODEL (required)");
  verb.add_option("--calibration", options->calibration,
                  "The calibration to solve from, or the first digits of its "
                  "id; the newest when left out")
      ->option_text("ID");
  AddQuantizerOption(
      verb, &options->quantizers,
      "Quantizers the map may use; the best mix of all that were calibrated "
      "when left out. Names: rtn, kivi, quarot, turboquant, tcq");
  verb.add_option("--policy", options->policy,
                  "A stored policy (see: ratequant policy), instead of the "
                  "options below that make one")
      ->option_text("NAME");
  AddPolicyOptions(verb, options);
  verb.add_option("--sinks", options->sinks,
                  "First tokens kept in fp16; must be the calibration's")
      ->check(WholeNumber())
      ->option_text("TOKENS");
  verb.add_option("--window", options->window,
                  "Newest tokens kept in fp16 (default 32)")
      ->check(WholeNumber())
      ->option_text("TOKENS");
  verb.add_option("--context", options->context,
                  "Context length that bytes are counted at, as 4096 (default) "
                  "or 32k")
      ->transform(TokenCount())
      ->option_text("TOKENS");
}

absl::Status FillPolicy(const PolicyOptions& options, v1::Policy& policy) {
  policy.set_objective(options.objective);
  policy.set_separate_key_value(options.separate);
  policy.set_min_width(options.min_width);
  policy.set_max_width(options.max_width);
  policy.set_max_formats_per_layer(options.max_formats);
  for (uint32_t width : options.widths) policy.add_allowed_widths(width);
  policy.set_key_min_width(options.key_min_width);
  policy.set_value_min_width(options.value_min_width);
  for (const std::string& text : options.rules) {
    absl::StatusOr<v1::GroupRule> rule = RuleFromText(text);
    if (!rule.ok()) return rule.status();
    *policy.add_rules() = *std::move(rule);
  }
  return absl::OkStatus();
}

}  // namespace ratequant::cli
