#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "clients/cli/bit_map_view.h"
#include "clients/cli/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/help.h"
#include "clients/cli/query_options.h"
#include "clients/cli/value_checks.h"

namespace ratequant::cli {
namespace {

struct BitMapFlags {
  QueryOptions query;
  v1::Policy::Strategy strategy = v1::Policy::STRATEGY_UNSPECIFIED;
  bool continuous = false;
  std::optional<double> effective_bits;
  std::optional<double> code_bits;
  std::optional<double> bytes_per_token;
  std::optional<double> max_loss_increase;
  std::string known_etag;
};

int BudgetsGiven(const BitMapFlags& flags) {
  return flags.effective_bits.has_value() + flags.code_bits.has_value() +
         flags.bytes_per_token.has_value() +
         flags.max_loss_increase.has_value();
}

void FillBudget(const BitMapFlags& flags, v1::Budget& budget) {
  if (flags.effective_bits.has_value()) {
    budget.set_effective_bits(*flags.effective_bits);
  } else if (flags.code_bits.has_value()) {
    budget.set_code_bits(*flags.code_bits);
  } else if (flags.bytes_per_token.has_value()) {
    budget.set_bytes_per_token(*flags.bytes_per_token);
  } else if (flags.max_loss_increase.has_value()) {
    budget.set_max_loss_increase(*flags.max_loss_increase);
  }
}

// What the uniform map costs under a budget of loss; nullopt under others, and
// when the allocator has no such map.
std::optional<double> UniformCost(v1::GetBitMapRequest request,
                                  Session& session) {
  if (!request.budget().has_max_loss_increase()) return std::nullopt;
  request.mutable_policy()->set_strategy(v1::Policy::UNIFORM);
  request.mutable_policy()->set_include_continuous(false);
  request.clear_known_etag();
  auto response = session.client().GetBitMap(request);
  if (!response.ok()) return std::nullopt;
  return response->bit_map().bytes_per_token();
}

absl::Status GetBitMap(const BitMapFlags& flags, Session& session) {
  v1::GetBitMapRequest request;
  absl::Status filled = FillQuery(flags.query, session.client(), request);
  if (!filled.ok()) return filled;
  FillBudget(flags, *request.mutable_budget());
  request.mutable_policy()->set_strategy(flags.strategy);
  request.mutable_policy()->set_include_continuous(flags.continuous);
  request.set_known_etag(flags.known_etag);

  auto response = session.client().GetBitMap(request);
  if (!response.ok()) return response.status();
  if (response->unchanged()) {
    if (session.json) return session.PrintJson(*response);
    session.Print(absl::StrCat("unchanged: ", response->etag(), "\n"));
    return absl::OkStatus();
  }
  if (session.json) return session.PrintJson(response->bit_map());
  auto text = RenderBitMap(response->bit_map(), session.terminal().out_style,
                           UniformCost(request, session));
  if (!text.ok()) return text.status();
  session.Print(*text);
  return absl::OkStatus();
}

void AddBudgetOptions(CLI::App& verb, BitMapFlags* flags) {
  const char* group = "Budget (exactly one)";
  verb.add_option("--effective-bits", flags->effective_bits,
                  "Stored bits per element, everything counted: scales, zero "
                  "points, padding, sinks and window")
      ->option_text("BITS")
      ->check(Number())
      ->group(group);
  verb.add_option("--code-bits", flags->code_bits,
                  "Average code width; overhead isn't counted, so it needs one "
                  "--quantizer")
      ->option_text("BITS")
      ->check(Number())
      ->group(group);
  verb.add_option("--bytes-per-token", flags->bytes_per_token,
                  "Stored bytes per token and sequence, everything counted")
      ->option_text("BYTES")
      ->check(Number())
      ->group(group);
  verb.add_option("--max-loss-increase", flags->max_loss_increase,
                  "Largest predicted loss increase, in nats per token: the "
                  "cheapest map below it")
      ->option_text("NATS")
      ->check(Number())
      ->group(group);
}

}  // namespace

void AddBitMapCommand(CLI::App& app, Session& session) {
  CLI::App* verb =
      app.add_subcommand("bitmap", "Gets the best bit map within a budget");
  verb->require_subcommand(1);
  SetHelp(*verb, {.examples = {"ratequant bitmap get --help"}});

  auto flags = std::make_shared<BitMapFlags>();
  CLI::App* get = verb->add_subcommand(
      "get",
      "Gets the best bit map within a budget: each head's quantizer and width");
  AddBudgetOptions(*get, flags.get());
  AddQueryOptions(*get, &flags->query);
  AddStrategyOption(*get, &flags->strategy);
  get->add_flag("--continuous", flags->continuous,
                "Also solve for real-valued widths (one quantizer; in --json)");
  get->add_option("--known-etag", flags->known_etag,
                  "Id of a map you have: answers 'unchanged' when it still is "
                  "the best")
      ->option_text("ID");
  SetHelp(*get,
          {.details =
               "--json prints the whole BitMap message, or {\"unchanged\": "
               "true, \"etag\": ...} when\n--known-etag still is the answer.",
           .examples = {
               "ratequant bitmap get --model Qwen/Qwen3-8B --effective-bits 3",
               "ratequant bitmap get --model Qwen/Qwen3-8B --code-bits 2.5 "
               "--quantizer kivi",
               "ratequant bitmap get --model Qwen/Qwen3-8B --effective-bits 4 "
               "--widths 2,4,8 \\\n      --rule layer=0,width=8",
               "ratequant bitmap get --model Qwen/Qwen3-8B --bytes-per-token "
               "40000 --json > map.json"}});
  get->callback([flags, &session] {
    if (BudgetsGiven(*flags) != 1) {
      throw CLI::ValidationError(
          "give exactly one budget: --effective-bits, --code-bits, "
          "--bytes-per-token or --max-loss-increase");
    }
    session.model = flags->query.model;
    session.command = [flags, &session] { return GetBitMap(*flags, session); };
  });
}

}  // namespace ratequant::cli
