#include "services/calibration/calibration_builder.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "ratequant/kv/codec.h"
#include "services/calibration/curve_fit.h"
#include "services/calibration/gain_prediction.h"
#include "services/common/canonical.h"
#include "services/common/resource_names.h"

namespace ratequant::calibration {
namespace {

constexpr int kMaxWarnings = 64;
constexpr int kOutlierFactor = 10;
// Average code bits that gains are predicted for.
constexpr double kPredictedBudgets[] = {2, 2.5, 3, 3.5, 4, 5};

void SetFit(const CurveFit& fit, v1::CurveFit* out) {
  out->set_alpha(fit.alpha);
  out->set_beta(fit.beta);
  out->set_r2(fit.r2);
  out->set_max_residual(fit.max_residual);
  out->set_beta_replaced(fit.beta_replaced);
}

void AddFits(const kv::DistortionTable& table,
             const v1::ModelGeometry& geometry, v1::DistortionTable* out,
             v1::Calibration* calibration) {
  const TableFits fits =
      FitTable(kv::QuantizerName(table.quantizer), table.widths, table.mse,
               static_cast<int>(geometry.kv_heads()));
  SetFit(fits.key, out->mutable_key_fit());
  SetFit(fits.value, out->mutable_value_fit());
  for (const CurveFit& fit : fits.groups) SetFit(fit, out->add_group_fits());
  for (const std::string& warning : fits.warnings) {
    calibration->add_warnings(warning);
  }
}

// Of one tensor (0: K, 1: V), from its groups' weights and fitted beta.
void SetGain(const kv::DistortionTables& tables, int head_dim, size_t tensor,
             double beta, v1::GainPrediction* out) {
  std::vector<double> weights;
  for (size_t g = tensor; g < tables.g2.size(); g += 2) {
    weights.push_back(head_dim * tables.g2[g]);
  }
  out->set_am_gm(ArithmeticOverGeometricMean(weights));
  for (double bits : kPredictedBudgets) {
    v1::BudgetGain* budget = out->add_budgets();
    budget->set_code_bits(bits);
    budget->set_gain(PredictGain(weights, beta, bits));
  }
}

absl::Status AddPageBytes(const kv::DistortionTable& table, int head_dim,
                          int page_tokens, v1::DistortionTable* out) {
  out->set_page_tokens(static_cast<uint32_t>(page_tokens));
  out->set_format_version(kv::kFormatVersion);
  for (int width : table.widths) {
    auto key = kv::ComputeSectionLayout(table.quantizer, kv::Tensor::kKey,
                                        width, head_dim, page_tokens);
    auto value = kv::ComputeSectionLayout(table.quantizer, kv::Tensor::kValue,
                                          width, head_dim, page_tokens);
    if (!key.ok()) return key.status();
    if (!value.ok()) return value.status();
    out->add_key_page_bytes(static_cast<uint32_t>(key->section_bytes));
    out->add_value_page_bytes(static_cast<uint32_t>(value->section_bytes));
  }
  return absl::OkStatus();
}

absl::Status AddTable(const kv::DistortionTables& tables,
                      const kv::DistortionTable& table,
                      const v1::ModelGeometry& geometry, uint32_t page_tokens,
                      v1::Calibration* calibration) {
  v1::DistortionTable* out = calibration->add_tables();
  *out->mutable_quantizer() = ToProto(table.quantizer);
  out->mutable_widths()->Assign(table.widths.begin(), table.widths.end());
  out->mutable_mse()->Assign(table.mse.begin(), table.mse.end());
  out->mutable_c1()->Assign(table.c1.begin(), table.c1.end());
  out->mutable_c2()->Assign(table.c2.begin(), table.c2.end());
  out->mutable_c2_standard_error()->Assign(table.c2_standard_error.begin(),
                                           table.c2_standard_error.end());
  out->mutable_d2()->Assign(table.d2.begin(), table.d2.end());
  AddFits(table, geometry, out, calibration);
  const int head_dim = static_cast<int>(geometry.head_dim());
  SetGain(tables, head_dim, 0, out->key_fit().beta(), out->mutable_key_gain());
  SetGain(tables, head_dim, 1, out->value_fit().beta(),
          out->mutable_value_gain());
  return AddPageBytes(table, head_dim, static_cast<int>(page_tokens), out);
}

void AddGroups(const kv::DistortionTables& tables, v1::Calibration* out) {
  for (size_t g = 0; g < tables.g2.size(); ++g) {
    v1::GroupStatistics* group = out->add_groups();
    group->set_g2(tables.g2[g]);
    group->set_x2(tables.x2[g]);
  }
}

void WarnFewTokens(const CalibrationPlan& plan, v1::Calibration* out) {
  if (plan.tokens() >= kFewTokens) return;
  out->add_warnings(absl::StrFormat(
      "Only %d calibration tokens: below %d the tables are noisy.",
      plan.tokens(), kFewTokens));
}

// A group whose gradient is exactly zero doesn't reach the loss: its tables say
// that it costs nothing, which is true only of this text.
void WarnNoGradient(const Measurement& measured, v1::Calibration* out) {
  const std::vector<double>& g2 = measured.tables.g2;
  size_t count = 0, first = 0;
  for (size_t g = g2.size(); g-- > 0;) {
    if (g2[g] != 0) continue;
    ++count;
    first = g;
  }
  if (count == 0) return;
  const size_t heads = measured.geometry.kv_heads();
  out->add_warnings(absl::StrFormat(
      "%d of %d groups have no gradient (first: layer %d, head %d, %s): they "
      "look free to quantize.",
      count, g2.size(), first / 2 / heads, first / 2 % heads,
      first % 2 == 0 ? "K" : "V"));
}

// A head whose values are all zero stores nothing that matters.
void WarnDeadHeads(const Measurement& measured, v1::Calibration* out) {
  const std::vector<double>& x2 = measured.tables.x2;
  const size_t count = std::count(x2.begin(), x2.end(), 0.0);
  if (count == 0) return;
  const size_t first = std::find(x2.begin(), x2.end(), 0.0) - x2.begin();
  const size_t heads = measured.geometry.kv_heads();
  out->add_warnings(absl::StrFormat(
      "%d of %d groups are dead, all their values zero (first: layer %d, head "
      "%d, %s).",
      count, x2.size(), first / 2 / heads, first / 2 % heads,
      first % 2 == 0 ? "K" : "V"));
}

// Layers that lose far more than most at one width: what they get decides much
// of the map, and their share may be this text's alone.
void WarnOutlierLayers(const Measurement& measured, v1::Calibration* out) {
  const kv::DistortionTable& table = measured.tables.tables[0];
  const size_t widths = table.widths.size(), width = (widths - 1) / 2;
  const size_t heads = measured.geometry.kv_heads();
  for (size_t tensor : {0, 1}) {
    std::vector<double> layers(measured.geometry.layers());
    for (size_t g = tensor; g < measured.tables.g2.size(); g += 2) {
      layers[g / 2 / heads] += table.c2[g * widths + width];
    }
    std::vector<double> sorted = layers;
    const auto middle = sorted.begin() + sorted.size() / 2;
    std::nth_element(sorted.begin(), middle, sorted.end());
    if (*middle <= 0) continue;  // nothing to compare with
    std::vector<size_t> outliers;
    for (size_t layer = 0; layer < layers.size(); ++layer) {
      if (layers[layer] > kOutlierFactor * *middle) outliers.push_back(layer);
    }
    if (outliers.empty()) continue;
    out->add_warnings(absl::StrFormat(
        "%s of %s %s loses more than %d times the median layer's (%s, %d "
        "bits).",
        tensor == 0 ? "K" : "V", outliers.size() == 1 ? "layer" : "layers",
        absl::StrJoin(outliers, ", "), kOutlierFactor,
        kv::QuantizerName(table.quantizer), table.widths[width]));
  }
}

// The registry takes kMaxWarnings; what is cut is said.
void LimitWarnings(v1::Calibration* out) {
  const int count = out->warnings_size();
  if (count <= kMaxWarnings) return;
  out->mutable_warnings()->DeleteSubrange(kMaxWarnings - 1,
                                          count - kMaxWarnings + 1);
  out->add_warnings(
      absl::StrFormat("%d more warnings.", count - kMaxWarnings + 1));
}

}  // namespace

absl::StatusOr<v1::Calibration> BuildCalibration(const CalibrationPlan& plan,
                                                 const Measurement& measured) {
  v1::Calibration calibration;
  *calibration.mutable_geometry() = measured.geometry;
  *calibration.mutable_capture() = measured.capture;
  calibration.mutable_capture()->set_means_subtracted(!measured.means.empty());
  calibration.mutable_means()->Assign(measured.means.begin(),
                                      measured.means.end());
  // Whatever an engine says of it.
  calibration.mutable_capture()->set_attention_output(plan.attention_output);
  calibration.mutable_capture()->set_attention_window(
      plan.attention_output ? kAttentionWindow : 0);
  for (const std::string& warning : measured.warnings) {
    calibration.add_warnings(warning);
  }
  WarnFewTokens(plan, &calibration);
  WarnNoGradient(measured, &calibration);
  WarnDeadHeads(measured, &calibration);
  WarnOutlierLayers(measured, &calibration);
  AddGroups(measured.tables, &calibration);
  for (const kv::DistortionTable& table : measured.tables.tables) {
    absl::Status added = AddTable(measured.tables, table, measured.geometry,
                                  plan.page_tokens, &calibration);
    if (!added.ok()) return added;
  }
  LimitWarnings(&calibration);
  auto digest = CalibrationDigest(calibration, plan.model_id);
  if (!digest.ok()) return digest.status();
  calibration.set_name(CalibrationName(plan.model_id, *digest));
  return calibration;
}

absl::StatusOr<std::string> CalibrationDigest(v1::Calibration calibration,
                                              const std::string& model_id) {
  calibration.set_name(ModelName(model_id));
  calibration.clear_create_time();
  return CanonicalDigest(calibration);
}

}  // namespace ratequant::calibration
