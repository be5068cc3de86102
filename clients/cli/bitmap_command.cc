#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "clients/cli/bit_map_options.h"
#include "clients/cli/bit_map_view.h"
#include "clients/cli/commands.h"
#include "clients/cli/evaluation_view.h"
#include "clients/cli/help.h"

namespace ratequant::cli {
namespace {

struct BitMapFlags {
  BitMapOptions options;
  bool continuous = false;
  bool show_noise = false;
};

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
  absl::Status filled =
      FillBitMapRequest(flags.options, session.client(), request);
  if (!filled.ok()) return filled;
  request.mutable_policy()->set_include_continuous(flags.continuous);

  auto response = session.client().GetBitMap(request);
  if (!response.ok()) return response.status();
  absl::Status written = WriteMap(flags.options, *response);
  if (!written.ok()) return written;
  if (response->unchanged()) {
    if (session.json) return session.PrintJson(*response);
    session.Print(absl::StrCat("unchanged: ", response->etag(), "\n"));
    return absl::OkStatus();
  }
  if (session.json) return session.PrintJson(response->bit_map());
  auto text = RenderBitMap(response->bit_map(), session.terminal().out_style,
                           UniformCost(request, session));
  if (!text.ok()) return text.status();
  const std::string noise =
      flags.show_noise
          ? absl::StrCat("\n", RenderNoise(response->bit_map(),
                                           session.terminal().out_style))
          : "";
  session.Print(absl::StrCat(*text, RenderEvidence(*response), noise));
  return absl::OkStatus();
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
  AddBitMapOptions(*get, &flags->options);
  get->add_flag("--continuous", flags->continuous,
                "Also solve for real-valued widths (one quantizer; in --json)");
  get->add_flag("--show-noise", flags->show_noise,
                "Also name the heads whose choice is within the tables' noise");
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
               "40000 --out map.json"}});
  get->callback([flags, &session] {
    CheckOneBudget(flags->options);
    session.model = flags->options.query.model;
    session.command = [flags, &session] { return GetBitMap(*flags, session); };
  });
}

}  // namespace ratequant::cli
