#include "clients/cli/plan_view.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "clients/cli/bit_map_view.h"
#include "clients/cli/format.h"
#include "clients/cli/table.h"
#include "clients/cpp/resource_names.h"

namespace ratequant::cli {
namespace {

std::string Sequences(int64_t count) {
  return absl::StrCat(FormatCount(count),
                      count == 1 ? " sequence" : " sequences");
}

std::string Sequences(int64_t count, int64_t tokens) {
  return absl::StrCat(Sequences(count), " of ", FormatCount(tokens), " tokens");
}

// What the same cache would be without quantization.
std::string Fp16Text(const v1::RateDistortionCurve& curve, int64_t memory,
                     uint32_t batch) {
  const v1::ModelGeometry& geometry = curve.geometry();
  const int64_t token = int64_t{4} * geometry.layers() * geometry.kv_heads() *
                        geometry.head_dim();
  const int64_t sequence = token * curve.cache().context_tokens();
  const int64_t fitting = memory / sequence;
  return absl::StrCat(
      FormatBytes(sequence * batch),
      fitting >= batch ? ", fits too; at most " : ", doesn't fit; only ",
      Sequences(fitting, curve.cache().context_tokens()));
}

std::string MemoryText(const PlanQuestion& question) {
  const int64_t caches = question.gpu_memory - question.weights;
  if (question.weights == 0) {
    return absl::StrCat(FormatBytes(caches),
                        " for caches, no weights set aside");
  }
  return absl::StrCat(FormatBytes(caches),
                      " for caches: ", FormatBytes(question.gpu_memory),
                      " less ", FormatBytes(question.weights), " of weights");
}

Table MakeRows(const v1::RateDistortionCurve& curve, bool loss) {
  Table rows({{"EFFECTIVE BITS", Align::kRight},
              {"BYTES/TOKEN", Align::kRight},
              {"MAX BATCH", Align::kRight},
              {"MAX CONTEXT", Align::kRight},
              {loss ? "LOSS INCREASE" : "OBJECTIVE", Align::kRight},
              {"AGAINST UNIFORM", Align::kRight}});
  for (int i = curve.points_size() - 1; i >= 0; --i) {
    const v1::RateDistortionPoint& point = curve.points(i);
    const double uniform = point.uniform_objective_value();
    rows.AddRow(
        {FormatFixed(point.effective_bits(), 3),
         FormatCount(static_cast<uint64_t>(point.bytes_per_token() + 0.5)),
         FormatCount(point.max_sequences()),
         FormatCount(point.max_context_tokens()),
         FormatSignificant(
             loss ? point.loss_increase() : point.objective_value(), 3),
         uniform > 0 ? Comparison(point.objective_value(), uniform) : "-"});
  }
  return rows;
}

}  // namespace

std::string RenderPlan(const v1::RateDistortionCurve& curve,
                       const PlanQuestion& question,
                       v1::Policy::Objective objective,
                       const TextStyle& style) {
  const int64_t memory = question.gpu_memory - question.weights;
  const uint32_t context = curve.cache().context_tokens();
  const std::string model = client::ModelIdOf(curve.calibration());
  const bool loss = PredictsLoss(objective);
  // Rounded up: less than a page, so that it is the same map.
  const double best =
      std::ceil(curve.points(curve.points_size() - 1).bytes_per_token() * 1e3) /
      1e3;
  return absl::StrCat(
      RenderPairs({{"model", model},
                   {"calibration", client::ResourceId(curve.calibration())},
                   {"memory", MemoryText(question)},
                   {"to fit", Sequences(question.batch, context)},
                   {"in fp16", Fp16Text(curve, memory, question.batch)}},
                  style),
      "\n", MakeRows(curve, loss).Render(style), "\n",
      curve.points_size() < static_cast<int>(curve.breakpoints())
          ? absl::StrCat(curve.points_size(), " of ",
                         FormatCount(curve.breakpoints()),
                         " budgets that fit, the best first. ")
          : "The best first. ",
      "Max batch at ", FormatCount(context), " tokens, max context with ",
      Sequences(question.batch),
      ".\nThe best map:  ratequant bitmap get --model ", model, " --context ",
      context, " --bytes-per-token ", FormatFixed(best, 3), "\n");
}

}  // namespace ratequant::cli
