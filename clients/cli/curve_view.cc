#include "clients/cli/curve_view.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "clients/cli/bit_map_view.h"
#include "clients/cli/format.h"
#include "clients/cli/plot.h"
#include "clients/cli/table.h"
#include "clients/cpp/resource_names.h"

namespace ratequant::cli {
namespace {

constexpr int kPlotColumns = 73;  // ends on a tick
constexpr int kPlotMargin = 14;   // columns the axis may take

// "-" when no such map costs as little.
std::string Against(double value, double baseline) {
  return baseline > 0 ? Comparison(value, baseline) : "-";
}

std::string RenderPoints(const v1::RateDistortionCurve& curve,
                         const std::string& value_title, double scale,
                         const TextStyle& style) {
  Table rows({{"EFFECTIVE BITS", Align::kRight},
              {"CODE BITS", Align::kRight},
              {"BYTES/TOKEN", Align::kRight},
              {value_title, Align::kRight},
              {"UNIFORM", Align::kRight},
              {"AGAINST UNIFORM", Align::kRight},
              {"K-CEIL-V-FLOOR", Align::kRight}});
  for (const auto& point : curve.points()) {
    double uniform = point.uniform_objective_value();
    rows.AddRow(
        {FormatFixed(point.effective_bits(), 3),
         FormatFixed(point.code_bits(), 3),
         FormatCount(static_cast<uint64_t>(point.bytes_per_token() + 0.5)),
         FormatSignificant(scale * point.objective_value(), 3),
         uniform > 0 ? FormatSignificant(scale * uniform, 3) : "-",
         Against(point.objective_value(), uniform),
         Against(point.objective_value(),
                 point.k_ceil_v_floor_objective_value())});
  }
  return rows.Render(style);
}

}  // namespace

std::string RenderCurve(const v1::RateDistortionCurve& curve,
                        v1::Policy::Objective objective,
                        const TextStyle& style) {
  const bool loss = PredictsLoss(objective);
  double scale = loss ? 0.5 : 1;
  std::string value_title = loss ? "LOSS INCREASE" : "OBJECTIVE";
  std::string text = absl::StrCat(
      RenderPairs({{"model", client::ModelIdOf(curve.calibration())},
                   {"calibration", client::ResourceId(curve.calibration())}},
                  style),
      "\n", RenderPoints(curve, value_title, scale, style));

  PlotSeries allocated = {.name = "allocated", .mark = '*', .ink = Ink::kGreen};
  PlotSeries uniform = {
      .name = "best uniform", .mark = 'o', .ink = Ink::kYellow, .steps = true};
  for (const auto& point : curve.points()) {
    allocated.points.push_back(
        {point.effective_bits(), scale * point.objective_value()});
    uniform.points.push_back(
        {point.effective_bits(), scale * point.uniform_objective_value()});
  }
  PlotSpec spec = {
      .title = loss
                   ? "predicted loss increase, nats per token"
                   : absl::StrCat("objective '", ObjectiveName(objective), "'"),
      .x_label = "effective bits per element",
      .columns = std::clamp(style.columns - kPlotMargin, 25, kPlotColumns)};
  if (curve.breakpoints() > static_cast<uint32_t>(curve.points_size())) {
    absl::StrAppend(&text, "\n", curve.points_size(), " of ",
                    FormatCount(curve.breakpoints()), " breakpoints\n");
  }
  std::string plot = RenderPlot(spec, {allocated, uniform}, style);
  if (!plot.empty()) absl::StrAppend(&text, "\n", plot);
  return text;
}

}  // namespace ratequant::cli
