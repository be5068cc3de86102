#include "clients/cli/evaluation_view.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/format.h"
#include "clients/cli/table.h"
#include "clients/cpp/resource_names.h"

namespace ratequant::cli {

std::string RenderEvidence(const v1::GetBitMapResponse& answer) {
  std::string text;
  if (answer.has_replacement()) {
    absl::StrAppend(
        &text, "uniform, in place of ",
        ShortId(client::ResourceId(answer.replacement().replaced_bit_map())),
        ", which ", answer.replacement().reason(), "\n");
  }
  if (!answer.has_evaluation()) return text;
  const v1::Evaluation& evaluation = answer.evaluation();
  const bool as_uniform =
      client::ResourceId(evaluation.uniform_bit_map()) == answer.etag();
  absl::StrAppendFormat(
      &text, "measured: perplexity %.4g, full precision %.4g",
      as_uniform ? evaluation.uniform_perplexity() : evaluation.perplexity(),
      evaluation.fp_perplexity());
  if (!as_uniform) {
    absl::StrAppendFormat(&text, ", uniform %.4g",
                          evaluation.uniform_perplexity());
  }
  absl::StrAppend(&text, "; ", FormatCount(evaluation.tokens()), " tokens",
                  answer.worse_than_uniform() ? "; worse than uniform" : "",
                  "\n");
  return text;
}

std::string RenderEvaluations(const std::vector<v1::Evaluation>& evaluations,
                              const TextStyle& style) {
  Table table({{"EVALUATION"},
               {"BIT MAP"},
               {"TEXT"},
               {"TOKENS", Align::kRight},
               {"FULL", Align::kRight},
               {"UNIFORM", Align::kRight},
               {"MAP", Align::kRight},
               {"MINUS UNIFORM, NATS", Align::kRight}});
  for (const v1::Evaluation& e : evaluations) {
    const std::string map = e.name().substr(0, e.name().find("/evaluations/"));
    table.AddRow({ShortId(client::ResourceId(e.name())),
                  ShortId(client::ResourceId(map)), e.text(),
                  FormatCount(e.tokens()),
                  absl::StrFormat("%.4g", e.fp_perplexity()),
                  absl::StrFormat("%.4g", e.uniform_perplexity()),
                  absl::StrFormat("%.4g", e.perplexity()),
                  absl::StrFormat("%+.4f ± %.4f", e.loss_minus_uniform(),
                                  e.loss_minus_uniform_stderr())});
  }
  return table.Render(style);
}

}  // namespace ratequant::cli
