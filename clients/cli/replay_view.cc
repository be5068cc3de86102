#include "clients/cli/replay_view.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "clients/cli/format.h"
#include "clients/cli/table.h"
#include "nlohmann/json.hpp"

namespace ratequant::cli {
namespace {

using Json = nlohmann::ordered_json;
using replay::LayerError;
using replay::ReplayResult;

// The errors of a map's layers, summed up.
struct Summary {
  double mean = 0;         // over layers
  size_t worst_layer = 0;  // whose mean is largest
  double worst = 0;        // of one token in one layer
};

Summary Summarize(const std::vector<LayerError>& layers) {
  Summary summary;
  for (size_t i = 0; i < layers.size(); ++i) {
    summary.mean += layers[i].mean / static_cast<double>(layers.size());
    summary.worst = std::max(summary.worst, layers[i].worst);
    if (layers[i].mean > layers[summary.worst_layer].mean) {
      summary.worst_layer = i;
    }
  }
  return summary;
}

std::string Speed(double tokens_per_second) {
  return FormatCount(static_cast<uint64_t>(tokens_per_second + 0.5));
}

std::string Error(double value) { return FormatSignificant(value, 3); }

std::string RenderMaps(absl::Span<const ReplayResult> results,
                       const TextStyle& style) {
  Table table({{"map"},
               {"code bits", Align::kRight},
               {"effective", Align::kRight},
               {"bytes", Align::kRight},
               {"error", Align::kRight},
               {"worst layer", Align::kRight},
               {"worst token", Align::kRight},
               {"append/s", Align::kRight},
               {"attend/s", Align::kRight}});
  for (const ReplayResult& result : results) {
    const Summary summary = Summarize(result.layers);
    table.AddRow({result.name, FormatFixed(result.code_bits, 3),
                  FormatFixed(result.effective_bits, 3),
                  FormatCount(static_cast<uint64_t>(result.allocated_bytes)),
                  Error(summary.mean),
                  absl::StrCat(Error(result.layers[summary.worst_layer].mean),
                               " (", summary.worst_layer, ")"),
                  Error(summary.worst), Speed(result.append_tokens_per_second),
                  Speed(result.attend_tokens_per_second)});
  }
  return table.Render(style);
}

std::string RenderLayers(absl::Span<const ReplayResult> results,
                         const TextStyle& style) {
  std::vector<Table::Column> columns = {{"layer", Align::kRight}};
  for (const ReplayResult& result : results) {
    columns.push_back({result.name, Align::kRight});
    columns.push_back({"worst", Align::kRight});
  }
  Table table(columns);
  for (size_t layer = 0; layer < results[0].layers.size(); ++layer) {
    std::vector<std::string> cells = {absl::StrCat(layer)};
    for (const ReplayResult& result : results) {
      cells.push_back(Error(result.layers[layer].mean));
      cells.push_back(Error(result.layers[layer].worst));
    }
    table.AddRow(std::move(cells));
  }
  return absl::StrCat("\n", table.Render(style));
}

Json ResultJson(const ReplayResult& result) {
  const Summary summary = Summarize(result.layers);
  Json layers = Json::array();
  for (const LayerError& error : result.layers) {
    layers.push_back({{"mean", error.mean}, {"worst", error.worst}});
  }
  return {{"map", result.name},
          {"code_bits", result.code_bits},
          {"effective_bits", result.effective_bits},
          {"allocated_bytes", result.allocated_bytes},
          {"error",
           {{"mean", summary.mean},
            {"worst_layer", summary.worst_layer},
            {"worst", summary.worst},
            {"layers", layers}}},
          {"append_tokens_per_second", result.append_tokens_per_second},
          {"attend_tokens_per_second", result.attend_tokens_per_second}};
}

}  // namespace

std::string RenderReplay(const ReplayHeading& heading,
                         absl::Span<const ReplayResult> results, bool per_layer,
                         const TextStyle& style) {
  const replay::CaptureInfo& capture = heading.capture;
  std::string text = absl::StrCat(
      capture.model, ": ", capture.sequences, " x ", capture.tokens,
      " tokens, the last ", heading.decode_tokens,
      " of each decoded one by one; ", heading.threads,
      heading.threads == 1 ? " thread\n" : " threads\n",
      "error: relative L2 of the attention output against exact attention\n\n",
      RenderMaps(results, style));
  if (per_layer) absl::StrAppend(&text, RenderLayers(results, style));
  return text;
}

std::string ReplayJson(const ReplayHeading& heading,
                       absl::Span<const ReplayResult> results) {
  const replay::CaptureInfo& capture = heading.capture;
  const kv::KvGeometry& geometry = capture.geometry;
  Json maps = Json::array();
  for (const ReplayResult& result : results) maps.push_back(ResultJson(result));
  const Json all = {{"capture",
                     {{"model", capture.model},
                      {"layers", geometry.layers},
                      {"kv_heads", geometry.kv_heads},
                      {"query_heads", geometry.query_heads},
                      {"head_dim", geometry.head_dim},
                      {"sequences", capture.sequences},
                      {"sequence_length", capture.tokens}}},
                    {"decode_tokens", heading.decode_tokens},
                    {"threads", heading.threads},
                    {"maps", maps}};
  return absl::StrCat(all.dump(2, ' ', false, Json::error_handler_t::replace),
                      "\n");
}

}  // namespace ratequant::cli
