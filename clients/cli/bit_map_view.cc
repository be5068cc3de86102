#include "clients/cli/bit_map_view.h"

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cli/format.h"
#include "clients/cli/table.h"
#include "clients/cli/width_picture.h"
#include "clients/cpp/quantizer_text.h"
#include "clients/cpp/resource_names.h"

namespace ratequant::cli {
namespace {

constexpr uint32_t kFp16 = 16;

uint64_t GroupCount(const v1::ModelGeometry& geometry) {
  return uint64_t{2} * geometry.layers() * geometry.kv_heads();
}

absl::Status CheckShape(const v1::BitMap& map) {
  uint64_t groups = GroupCount(map.geometry());
  if (groups == 0 || static_cast<uint64_t>(map.width_size()) != groups ||
      static_cast<uint64_t>(map.quantizer_index_size()) != groups) {
    return absl::InternalError(absl::StrCat(
        "the allocator's bit map has ", map.width_size(), " widths and ",
        map.quantizer_index_size(), " quantizers for ", groups, " groups"));
  }
  for (uint32_t index : map.quantizer_index()) {
    if (index >= static_cast<uint32_t>(map.quantizers_size())) {
      return absl::InternalError(
          absl::StrCat("the allocator's bit map names quantizer ", index,
                       " of ", map.quantizers_size()));
    }
  }
  return absl::OkStatus();
}

std::string BudgetText(const v1::BitMap& map) {
  const v1::Budget& budget = map.budget();
  std::string left =
      absl::StrCat(" (", FormatSignificant(map.budget_left(), 2), " left)");
  switch (budget.limit_case()) {
    case v1::Budget::kCodeBits:
      return absl::StrCat(FormatSignificant(budget.code_bits(), 4),
                          " code bits per element", left);
    case v1::Budget::kEffectiveBits:
      return absl::StrCat(FormatSignificant(budget.effective_bits(), 4),
                          " effective bits per element", left);
    case v1::Budget::kBytesPerToken:
      return absl::StrCat(FormatSignificant(budget.bytes_per_token(), 6),
                          " bytes per token", left);
    case v1::Budget::kMaxLossIncrease:
      return absl::StrCat("loss increase of at most ",
                          FormatSignificant(budget.max_loss_increase(), 3),
                          " nats per token", left);
    case v1::Budget::LIMIT_NOT_SET:
      break;
  }
  return "";
}

std::string CostText(const v1::BitMap& map) {
  std::string text = absl::StrCat(
      FormatFixed(map.code_bits(), 3), " code bits, ",
      FormatFixed(map.effective_bits(), 3), " effective bits per element\n",
      FormatCount(static_cast<uint64_t>(map.bytes_per_token() + 0.5)),
      " bytes per token");
  double fp16 = 2.0 * static_cast<double>(GroupCount(map.geometry())) *
                map.geometry().head_dim();
  if (map.bytes_per_token() > 0) {
    absl::StrAppend(&text, ", ", FormatFixed(fp16 / map.bytes_per_token(), 2),
                    " times smaller than fp16");
  }
  return text;
}

// A baseline's sum and how the map compares with it.
std::string BaselineText(const std::string& name, double value, double base,
                         double scale) {
  std::string comparison = Comparison(value, base);
  if (comparison.empty()) return absl::StrCat("no ", name, " map fits");
  return absl::StrCat(comparison, " than ", name, " (",
                      FormatSignificant(scale * base, 3), ")");
}

std::string PredictionText(const v1::BitMap& map,
                           std::optional<double> uniform_bytes_per_token) {
  const bool loss = PredictsLoss(map.policy().objective());
  // Half the sum estimates the loss increase.
  double scale = loss ? 0.5 : 1;
  std::string value = FormatSignificant(scale * map.objective_value(), 3);
  std::string text =
      loss ? absl::StrCat("loss +", value, " nats per token")
           : absl::StrCat("objective '",
                          ObjectiveName(map.policy().objective()), "' ", value);
  if (map.budget().limit_case() == v1::Budget::kMaxLossIncrease) {
    if (!uniform_bytes_per_token.has_value()) return text;
    return absl::StrCat(
        text, "\n", Comparison(map.bytes_per_token(), *uniform_bytes_per_token),
        " cost than the uniform map within the same loss (",
        FormatCount(static_cast<uint64_t>(*uniform_bytes_per_token + 0.5)),
        " bytes per token)");
  }
  return absl::StrCat(
      text, "\n",
      BaselineText("uniform", map.objective_value(),
                   map.uniform_objective_value(), scale),
      "; ",
      BaselineText("k-ceil-v-floor", map.objective_value(),
                   map.k_ceil_v_floor_objective_value(), scale));
}

// Empty when there is nothing to say: the map is optimal.
std::string GapText(const v1::BitMap& map) {
  if (map.optimality_gap() == 0) return "";
  return absl::StrCat("at most ",
                      FormatSignificant(100 * map.optimality_gap(), 2),
                      "% above the least there is");
}

std::string CacheText(const v1::CacheConfig& cache) {
  std::vector<std::string> kept;
  if (cache.sink_tokens() != 0) {
    kept.push_back(absl::StrCat("first ", cache.sink_tokens()));
  }
  if (cache.window() != 0) {
    kept.push_back(absl::StrCat("newest ", cache.window()));
  }
  return absl::StrCat(
      kept.empty() ? "no" : absl::StrJoin(kept, " and "),
      " tokens in fp16; bytes counted at ", FormatCount(cache.context_tokens()),
      " tokens",
      cache.page_tokens() == 0
          ? ""
          : absl::StrCat(", in pages of ", cache.page_tokens()));
}

// How many groups got which quantizer and width.
std::string RenderCounts(const v1::BitMap& map, const TextStyle& style) {
  std::set<uint32_t> widths(map.width().begin(), map.width().end());
  std::vector<Table::Column> columns = {{"GROUPS"}, {"QUANTIZER"}};
  for (uint32_t width : widths) {
    columns.push_back(
        {width == kFp16 ? "fp16" : absl::StrCat(width, " bit"), Align::kRight});
  }
  columns.push_back({"ALL", Align::kRight});
  // Keyed by tensor and quantizer; fp16 groups use none and come last.
  std::map<std::pair<int, int>, std::map<uint32_t, int>> counts;
  for (int group = 0; group < map.width_size(); ++group) {
    uint32_t width = map.width(group);
    int quantizer = width == kFp16
                        ? map.quantizers_size()
                        : static_cast<int>(map.quantizer_index(group));
    ++counts[{group % 2, quantizer}][width];
  }
  Table table(columns);
  for (const auto& [key, by_width] : counts) {
    auto [tensor, quantizer] = key;
    std::vector<std::string> row = {
        tensor == 0 ? "K" : "V",
        quantizer == map.quantizers_size()
            ? "none"
            : client::QuantizerText(map.quantizers(quantizer))};
    int all = 0;
    for (uint32_t width : widths) {
      auto found = by_width.find(width);
      row.push_back(found == by_width.end() ? "-"
                                            : absl::StrCat(found->second));
      all += found == by_width.end() ? 0 : found->second;
    }
    row.push_back(absl::StrCat(all));
    table.AddRow(row);
  }
  return table.Render(style);
}

}  // namespace

std::string ObjectiveName(v1::Policy::Objective objective) {
  switch (objective) {
    case v1::Policy::PAPER:
      return "paper";
    case v1::Policy::MEASURED:
      return "measured";
    case v1::Policy::ATTENTION_OUTPUT:
      return "attention-output";
    case v1::Policy::OBJECTIVE_UNSPECIFIED:
    case v1::Policy::LOSS_PROJECTED:
      return "loss-projected";
    default:
      return absl::StrCat("objective#", static_cast<int>(objective));
  }
}

bool PredictsLoss(v1::Policy::Objective objective) {
  return objective == v1::Policy::LOSS_PROJECTED ||
         objective == v1::Policy::ATTENTION_OUTPUT ||
         objective == v1::Policy::OBJECTIVE_UNSPECIFIED;
}

std::string StrategyName(v1::Policy::Strategy strategy) {
  switch (strategy) {
    case v1::Policy::STRATEGY_UNSPECIFIED:
    case v1::Policy::ALLOCATED:
      return "allocated";
    case v1::Policy::UNIFORM:
      return "uniform";
    case v1::Policy::K_CEIL_V_FLOOR:
      return "k-ceil-v-floor";
    case v1::Policy::LAYER_WISE:
      return "layer-wise";
    default:
      return absl::StrCat("strategy#", static_cast<int>(strategy));
  }
}

std::string PolicyText(const v1::Policy& policy) {
  std::string text = absl::StrCat(StrategyName(policy.strategy()), ", ",
                                  ObjectiveName(policy.objective()));
  if (policy.separate_key_value()) {
    absl::StrAppend(&text, ", K and V budgeted apart");
  }
  if (policy.min_width() != 0 || policy.max_width() != 0) {
    absl::StrAppend(&text, ", ",
                    policy.min_width() == 0
                        ? "up to "
                        : absl::StrCat(policy.min_width(), " to "),
                    policy.max_width() == 0 ? 8 : policy.max_width(), " bits");
  }
  if (!policy.allowed_widths().empty()) {
    absl::StrAppend(&text, ", widths ",
                    absl::StrJoin(policy.allowed_widths(), ", "));
  }
  if (policy.key_min_width() != 0) {
    absl::StrAppend(&text, ", K from ", policy.key_min_width(), " bits");
  }
  if (policy.value_min_width() != 0) {
    absl::StrAppend(&text, ", V from ", policy.value_min_width(), " bits");
  }
  if (!policy.rules().empty()) {
    absl::StrAppend(&text, ", ", policy.rules_size(),
                    policy.rules_size() == 1 ? " rule" : " rules");
  }
  if (policy.max_formats_per_layer() != 0) {
    absl::StrAppend(&text, ", at most ", policy.max_formats_per_layer(),
                    " formats in a layer");
  }
  return text;
}

std::string Comparison(double value, double base) {
  if (!(base > 0)) return "";
  double change = value / base - 1;
  if (change < -1e-9) return absl::StrCat(FormatPercent(-change), " less");
  if (change > 1e-9) return absl::StrCat(FormatPercent(change), " more");
  return "no more";
}

std::string RenderNoise(const v1::BitMap& map, const TextStyle& style) {
  const int heads = static_cast<int>(map.geometry().kv_heads());
  if (map.within_noise().empty() || map.within_noise_size() % heads != 0) {
    return "Noise isn't known: the calibration has no standard errors, or the "
           "map isn't an allocated\nloss-projected one.\n";
  }
  Table rows({{"LAYER", Align::kRight}, {"K HEADS"}, {"V HEADS"}});
  int count = 0;
  for (int first = 0; first < map.within_noise_size(); first += 2 * heads) {
    std::vector<std::string> open[2];
    for (int i = 0; i < 2 * heads; ++i) {
      if (map.within_noise(first + i))
        open[i % 2].push_back(absl::StrCat(i / 2));
    }
    if (open[0].empty() && open[1].empty()) continue;
    count += static_cast<int>(open[0].size() + open[1].size());
    rows.AddRow({absl::StrCat(first / 2 / heads), absl::StrJoin(open[0], " "),
                 absl::StrJoin(open[1], " ")});
  }
  return absl::StrCat(
      "Within noise: one standard error of its table would change ", count,
      " of ", map.within_noise_size(), " groups\n",
      count == 0 ? "" : rows.Render(style));
}

absl::StatusOr<std::string> RenderBitMap(
    const v1::BitMap& map, const TextStyle& style,
    std::optional<double> uniform_bytes_per_token) {
  absl::Status shape = CheckShape(map);
  if (!shape.ok()) return shape;
  std::string summary =
      RenderPairs({{"model", client::ModelIdOf(map.name())},
                   {"bit map", client::ResourceId(map.name())},
                   {"calibration", client::ResourceId(map.calibration())},
                   {"budget", BudgetText(map)},
                   {"cost", CostText(map)},
                   {"predicted", PredictionText(map, uniform_bytes_per_token)},
                   {"policy", PolicyText(map.policy())},
                   {"optimality", GapText(map)},
                   {"cache", CacheText(map.cache())}},
                  style);
  return absl::StrCat(summary, "\n", RenderCounts(map, style), "\n",
                      RenderWidthPicture(map, style));
}

}  // namespace ratequant::cli
