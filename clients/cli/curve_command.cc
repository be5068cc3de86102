#include <memory>
#include <optional>

#include "clients/cli/commands.h"
#include "clients/cli/curve_view.h"
#include "clients/cli/help.h"
#include "clients/cli/query_options.h"
#include "clients/cli/value_checks.h"

namespace ratequant::cli {
namespace {

constexpr uint32_t kTablePoints = 24;

struct CurveFlags {
  QueryOptions query;
  v1::GetRateDistortionCurveRequest::Cost cost =
      v1::GetRateDistortionCurveRequest::BYTES;
  std::optional<uint32_t> max_points;
};

absl::Status GetCurve(const CurveFlags& flags, Session& session) {
  v1::GetRateDistortionCurveRequest request;
  absl::Status filled = FillQuery(flags.query, session.client(), request);
  if (!filled.ok()) return filled;
  request.set_cost(flags.cost);
  // People get a table they can read, programs everything.
  request.set_max_points(
      flags.max_points.value_or(session.json ? 0 : kTablePoints));
  auto curve = session.client().GetRateDistortionCurve(request);
  if (!curve.ok()) return curve.status();
  if (session.json) return session.PrintJson(*curve);
  session.Print(
      RenderCurve(*curve, flags.query.objective, session.terminal().out_style));
  return absl::OkStatus();
}

}  // namespace

void AddCurveCommand(CLI::App& app, Session& session) {
  auto flags = std::make_shared<CurveFlags>();
  CLI::App* verb = app.add_subcommand(
      "curve",
      "Shows predicted loss against cost for the whole range of budgets");
  AddQueryOptions(*verb, &flags->query);
  verb->add_option("--cost", flags->cost,
                   "What maps are compared by: bytes (default), or code-bits, "
                   "which leave overhead out and need one --quantizer")
      ->transform(
          Choice({{"bytes", v1::GetRateDistortionCurveRequest::BYTES},
                  {"code-bits", v1::GetRateDistortionCurveRequest::CODE_BITS}}))
      ->option_text("NAME");
  verb->add_option("--max-points", flags->max_points,
                   "Most points to show, 0 for all (default 24; all with "
                   "--json)")
      ->check(WholeNumber())
      ->option_text("N");
  SetHelp(*verb,
          {.examples = {
               "ratequant curve --model Qwen/Qwen3-8B",
               "ratequant curve --model Qwen/Qwen3-8B --quantizer turboquant "
               "--max-points 10",
               "ratequant curve --model Qwen/Qwen3-8B --json > curve.json"}});
  verb->callback([flags, &session] {
    session.model = flags->query.model;
    session.command = [flags, &session] { return GetCurve(*flags, session); };
  });
}

}  // namespace ratequant::cli
