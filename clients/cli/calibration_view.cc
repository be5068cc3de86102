#include "clients/cli/calibration_view.h"

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
  Table rows(columns);
  for (const auto& table : calibration.tables()) {
    std::map<uint32_t, double> loss = LossByWidth(table);
    std::vector<std::string> row = {client::QuantizerText(table.quantizer())};
    for (uint32_t width : widths) {
      auto found = loss.find(width);
      row.push_back(found == loss.end() ? "-"
                                        : FormatSignificant(found->second, 3));
    }
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
                   {"software", absl::StrJoin(capture.software(), ", ")},
                   {"warnings", absl::StrJoin(calibration.warnings(), "\n")}},
                  style);
  if (calibration.tables().empty()) return text;
  absl::StrAppend(
      &text,
      "\nPredicted loss increase with every group at one width, nats per "
      "token\n",
      RenderLoss(calibration, style),
      "\nFits of the mean squared error, alpha * beta^-bits over 2 to 6 bits\n",
      RenderFits(calibration, style));
  return text;
}

}  // namespace ratequant::cli
