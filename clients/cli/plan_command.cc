#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/format.h"
#include "clients/cli/help.h"
#include "clients/cli/plan_view.h"
#include "clients/cli/query_options.h"
#include "clients/cli/value_checks.h"

namespace ratequant::cli {
namespace {

constexpr uint32_t kTablePoints = 16;

struct PlanFlags {
  QueryOptions query;
  PlanQuestion question;
  std::optional<uint32_t> max_points;
};

absl::Status GetPlan(const PlanFlags& flags, Session& session) {
  const PlanQuestion& question = flags.question;
  if (question.weights >= question.gpu_memory) {
    return UsageError(absl::StrCat(
        "--weights ", FormatBytes(question.weights), " leave nothing of ",
        "--gpu-memory ", FormatBytes(question.gpu_memory), " for caches"));
  }
  v1::GetRateDistortionCurveRequest request;
  absl::Status filled = FillQuery(flags.query, session.client(), request);
  if (!filled.ok()) return filled;
  request.mutable_capacity()->set_memory_bytes(question.gpu_memory -
                                               question.weights);
  request.mutable_capacity()->set_sequences(question.batch);
  request.set_max_points(
      flags.max_points.value_or(session.json ? 0 : kTablePoints));
  auto curve = session.client().GetRateDistortionCurve(request);
  if (!curve.ok()) return curve.status();
  if (session.json) return session.PrintJson(*curve);
  session.Print(RenderPlan(*curve, question, flags.query.objective,
                           session.terminal().out_style));
  return absl::OkStatus();
}

}  // namespace

void AddPlanCommand(CLI::App& app, Session& session) {
  auto flags = std::make_shared<PlanFlags>();
  CLI::App* verb = app.add_subcommand(
      "plan", "Shows which budgets fit a GPU's memory, and what each costs");
  verb->add_option("--gpu-memory", flags->question.gpu_memory,
                   "Memory of the GPU, or of all that share the cache, such as "
                   "80GiB (KiB, MiB, GiB, TiB)")
      ->transform(MemorySize())
      ->required()
      ->option_text("SIZE (required)");
  verb->add_option("--weights", flags->question.weights,
                   "What of it is taken by weights, activations and anything "
                   "else (default 0GiB)")
      ->transform(MemorySize())
      ->option_text("SIZE");
  verb->add_option("--batch", flags->question.batch,
                   "Sequences of --context tokens that must fit at once "
                   "(default 1)")
      ->check(WholeNumber())
      ->check(CLI::Range(1u, UINT32_MAX))
      ->option_text("N");
  AddQueryOptions(*verb, &flags->query);
  verb->add_option("--max-points", flags->max_points,
                   "Most budgets to show, 0 for all (default 16; all with "
                   "--json)")
      ->check(WholeNumber())
      ->option_text("N");
  SetHelp(
      *verb,
      {.details =
           "Bytes are those the cache really takes, scales, zero points, "
           "padding, sinks and window\ncounted. --json prints the "
           "RateDistortionCurve message, cheapest first.",
       .examples = {"ratequant plan --model Qwen/Qwen3-8B --gpu-memory 80GiB "
                    "--weights 16GiB --context 32k --batch 64",
                    "ratequant plan --model Qwen/Qwen3-8B --gpu-memory 24GiB "
                    "--weights 16GiB --context 128k --json"}});
  verb->callback([flags, &session] {
    session.model = flags->query.model;
    session.command = [flags, &session] { return GetPlan(*flags, session); };
  });
}

}  // namespace ratequant::cli
