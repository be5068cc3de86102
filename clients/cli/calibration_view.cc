#include "clients/cli/calibration_view.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cli/format.h"
#include "clients/cli/table.h"
#include "clients/cpp/quantizer_text.h"
#include "clients/cpp/resource_names.h"

namespace ratequant::cli {
namespace {

std::string ShapeText(const v1::ModelGeometry& geometry) {
  return absl::StrCat(
      geometry.layers(), " layers, ", geometry.kv_heads(), " KV heads, ",
      geometry.query_heads(), " query heads, head_dim ", geometry.head_dim(),
      "; ", FormatCount(uint64_t{2} * geometry.layers() * geometry.kv_heads()),
      " groups");
}

std::string CaptureText(const v1::CaptureInfo& capture) {
  std::string text =
      absl::StrCat(capture.sequences(), " sequences of ",
                   FormatCount(capture.sequence_length()), " tokens, ",
                   capture.sink_tokens() == 0
                       ? "no sinks left out"
                       : absl::StrCat("the first ", capture.sink_tokens(),
                                      " left out as sinks"));
  if (!capture.dtype().empty()) absl::StrAppend(&text, "; ", capture.dtype());
  if (!capture.device().empty()) {
    absl::StrAppend(&text, " on ", capture.device());
  }
  return text;
}

std::string SweepText(const v1::CaptureInfo& capture) {
  if (capture.sweep_device().empty()) return "";
  return absl::StrCat("on ", capture.sweep_device(), " by ",
                      absl::StrJoin(capture.sweep_software(), ", "));
}

std::string PageText(const v1::Calibration& calibration) {
  if (calibration.tables().empty()) return "";
  return absl::StrCat(calibration.tables(0).page_tokens(), " tokens");
}

std::string NllText(double nll) {
  if (nll == 0) return "";
  return absl::StrCat(FormatSignificant(nll, 4),
                      " nats per token without quantization");
}

// Sum over groups of c2 for each width; empty when the arrays don't fit.
std::map<uint32_t, double> LossByWidth(const v1::DistortionTable& table) {
  std::map<uint32_t, double> loss;
  int widths = table.widths_size();
  if (widths == 0 || table.c2_size() % widths != 0) return loss;
  for (int i = 0; i < table.c2_size(); ++i) {
    loss[table.widths(i % widths)] += 0.5 * table.c2(i);
  }
  return loss;
}

// Median over all entries of the standard error of c2, as a part of it; "-"
// without standard errors.
std::string NoiseText(const v1::DistortionTable& table) {
  std::vector<double> parts;
  for (int i = 0; i < table.c2_standard_error_size(); ++i) {
    if (i < table.c2_size() && table.c2(i) > 0) {
      parts.push_back(table.c2_standard_error(i) / table.c2(i));
    }
  }
  if (parts.empty()) return "-";
  const auto middle = parts.begin() + static_cast<int>(parts.size() / 2);
  std::nth_element(parts.begin(), middle, parts.end());
  return FormatPercent(*middle);
}

std::string RenderLoss(const v1::Calibration& calibration,
                       const TextStyle& style) {
  std::set<uint32_t> widths;
  for (const auto& table : calibration.tables()) {
    widths.insert(table.widths().begin(), table.widths().end());
  }
  std::vector<Table::Column> columns = {{"QUANTIZER"}};
  for (uint32_t width : widths) {
    columns.push_back({absl::StrCat(width, " bit"), Align::kRight});
  }
  columns.push_back({"NOISE", Align::kRight});
  Table rows(columns);
  for (const auto& table : calibration.tables()) {
    std::map<uint32_t, double> loss = LossByWidth(table);
    std::vector<std::string> row = {client::QuantizerText(table.quantizer())};
    for (uint32_t width : widths) {
      auto found = loss.find(width);
      row.push_back(found == loss.end() ? "-"
                                        : FormatSignificant(found->second, 3));
    }
    row.push_back(NoiseText(table));
    rows.AddRow(row);
  }
  return rows.Render(style);
}

void AddFit(const std::string& quantizer, const std::string& tensor,
            const v1::CurveFit& fit, Table& rows) {
  rows.AddRow({quantizer, tensor, FormatSignificant(fit.alpha(), 3),
               FormatFixed(fit.beta(), 2), FormatFixed(fit.r2(), 4),
               FormatSignificant(fit.max_residual(), 2),
               fit.beta_replaced() ? "beta replaced: poor fit" : ""});
}

std::string RenderFits(const v1::Calibration& calibration,
                       const TextStyle& style) {
  Table rows({{"QUANTIZER"},
              {"FIT"},
              {"ALPHA", Align::kRight},
              {"BETA", Align::kRight},
              {"R2", Align::kRight},
              {"RESIDUAL", Align::kRight},
              {""}});
  for (const auto& table : calibration.tables()) {
    std::string quantizer = client::QuantizerText(table.quantizer());
    AddFit(quantizer, "K", table.key_fit(), rows);
    AddFit(quantizer, "V", table.value_fit(), rows);
  }
  return rows.Render(style);
}

// Group fits whose beta was replaced.
int ReplacedFits(const v1::DistortionTable& table, int tensor) {
  int count = 0;
  for (int g = tensor; g < table.group_fits_size(); g += 2) {
    count += table.group_fits(g).beta_replaced() ? 1 : 0;
  }
  return count;
}

// Lowest R^2 of the groups' own fits.
double LowestR2(const v1::DistortionTable& table, int tensor) {
  double lowest = 1;
  for (int g = tensor; g < table.group_fits_size(); g += 2) {
    lowest = std::min(lowest, table.group_fits(g).r2());
  }
  return lowest;
}

// What Theorem 3 says allocation gains, and how well each head fits its curve.
std::string RenderGains(const v1::Calibration& calibration,
                        const TextStyle& style) {
  std::vector<Table::Column> columns = {{"QUANTIZER"},
                                        {"TENSOR"},
                                        {"LEAST R2", Align::kRight},
                                        {"FALLBACKS", Align::kRight},
                                        {"AM/GM", Align::kRight}};
  for (const v1::BudgetGain& budget :
       calibration.tables(0).key_gain().budgets()) {
    columns.push_back(
        {absl::StrCat(budget.code_bits(), " bit"), Align::kRight});
  }
  Table rows(columns);
  for (const v1::DistortionTable& table : calibration.tables()) {
    for (int tensor : {0, 1}) {
      const v1::GainPrediction& gain =
          tensor == 0 ? table.key_gain() : table.value_gain();
      std::vector<std::string> row = {client::QuantizerText(table.quantizer()),
                                      tensor == 0 ? "K" : "V",
                                      FormatFixed(LowestR2(table, tensor), 4),
                                      absl::StrCat(ReplacedFits(table, tensor)),
                                      FormatSignificant(gain.am_gm(), 3)};
      for (size_t i = row.size(); i < columns.size(); ++i) {
        const int budget = static_cast<int>(i) - 5;
        row.push_back(budget < gain.budgets_size()
                          ? FormatSignificant(gain.budgets(budget).gain(), 3)
                          : "-");
      }
      rows.AddRow(row);
    }
  }
  return rows.Render(style);
}

std::string QuantizerList(const v1::Calibration& calibration) {
  return absl::StrJoin(calibration.tables(), " ",
                       [](std::string* out, const v1::DistortionTable& table) {
                         *out += client::QuantizerText(table.quantizer());
                       });
}

}  // namespace

std::string RenderModels(const std::vector<v1::Model>& models,
                         const TextStyle& style) {
  Table rows({{"MODEL"},
              {"LAYERS", Align::kRight},
              {"KV HEADS", Align::kRight},
              {"HEAD DIM", Align::kRight},
              {"CALIBRATIONS", Align::kRight},
              {"NEWEST (UTC)"}});
  for (const v1::Model& model : models) {
    const v1::ModelGeometry& geometry = model.geometry();
    rows.AddRow(
        {client::ResourceId(model.name()), absl::StrCat(geometry.layers()),
         absl::StrCat(geometry.kv_heads()), absl::StrCat(geometry.head_dim()),
         absl::StrCat(model.calibration_count()),
         FormatTimestamp(model.update_time())});
  }
  return rows.Render(style);
}

std::string RenderModel(const v1::Model& model, const TextStyle& style) {
  return RenderPairs(
      {{"model", client::ResourceId(model.name())},
       {"shape", ShapeText(model.geometry())},
       {"calibrations", absl::StrCat(model.calibration_count())},
       {"newest", client::ResourceId(model.latest_calibration())},
       {"stored (UTC)", FormatTimestamp(model.update_time())}},
      style);
}

std::string RenderCalibrationList(
    const std::vector<v1::Calibration>& calibrations, const TextStyle& style) {
  Table rows({{"MODEL"},
              {"CALIBRATION"},
              {"STORED (UTC)"},
              {"TOKENS", Align::kRight},
              {"SINKS", Align::kRight},
              {"QUANTIZERS"}});
  for (const v1::Calibration& calibration : calibrations) {
    const v1::CaptureInfo& capture = calibration.capture();
    rows.AddRow(
        {client::ModelIdOf(calibration.name()),
         ShortId(client::ResourceId(calibration.name())),
         FormatTimestamp(calibration.create_time()),
         FormatCount(uint64_t{capture.sequences()} * capture.sequence_length()),
         absl::StrCat(capture.sink_tokens()), QuantizerList(calibration)});
  }
  return rows.Render(style);
}

std::string RenderCalibration(const v1::Calibration& calibration,
                              const TextStyle& style) {
  const v1::CaptureInfo& capture = calibration.capture();
  std::string text =
      RenderPairs({{"model", client::ModelIdOf(calibration.name())},
                   {"calibration", client::ResourceId(calibration.name())},
                   {"stored (UTC)", FormatTimestamp(calibration.create_time())},
                   {"shape", ShapeText(calibration.geometry())},
                   {"captured", CaptureText(capture)},
                   {"page", PageText(calibration)},
                   {"means", capture.means_subtracted() ? "subtracted" : ""},
                   {"loss", NllText(capture.mean_nll())},
                   {"model digest", capture.model_digest()},
                   {"tokenizer digest", capture.tokenizer_digest()},
                   {"token digest", capture.token_digest()},
                   {"software", absl::StrJoin(capture.software(), ", ")},
                   {"measured", SweepText(capture)},
                   {"warnings", absl::StrJoin(calibration.warnings(), "\n")}},
                  style);
  if (calibration.tables().empty()) return text;
  absl::StrAppend(
      &text,
      "\nPredicted loss increase with every group at one width, nats per "
      "token; NOISE is the median\nstandard error of an entry\n",
      RenderLoss(calibration, style),
      "\nFits of the mean squared error, alpha * beta^-bits over 2 to 6 bits\n",
      RenderFits(calibration, style),
      "\nThe heads' own fits, and how many times less weighted error "
      "allocation makes than\nuniform widths at the same code bits, by the "
      "paper's Theorem 3\n",
      RenderGains(calibration, style));
  return text;
}

}  // namespace ratequant::cli
