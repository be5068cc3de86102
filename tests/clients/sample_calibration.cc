#include "tests/clients/sample_calibration.h"

#include <cmath>
#include <cstdlib>

#include "clients/cpp/quantizer_text.h"

namespace ratequant::testing {
namespace {

constexpr int kHeads = 2;
constexpr int kHeadDim = 64;
constexpr int kPageTokens = 32;
constexpr int kMaxWidth = 8;

// Overhead of one element, in bits, for head_dim 64 (scales and zero points).
double OverheadBits(v1::Quantizer::Kind kind) {
  switch (kind) {
    case v1::Quantizer::KIVI:
      return 1;
    case v1::Quantizer::QUAROT:
      return 0.5;
    default:
      return 0.25;
  }
}

double Alpha(v1::Quantizer::Kind kind) {
  return kind == v1::Quantizer::TURBOQUANT ? 1.5 : 2.4;
}

double Beta(v1::Quantizer::Kind kind) {
  return kind == v1::Quantizer::TURBOQUANT ? 3.7 : 4.6;
}

double Sensitivity(int group, int layers, int seed) {
  int layer = group / (2 * kHeads);
  bool value = group % 2 == 1;
  double spread = std::exp(2.3 * std::sin(1.7 * group + seed));
  double late = value && layer == layers - 1 ? 8 : 1;
  return 1e-3 * spread * late * (value ? 0.3 : 1);
}

v1::CurveFit Fit(double alpha, double beta) {
  v1::CurveFit fit;
  fit.set_alpha(alpha);
  fit.set_beta(beta);
  fit.set_r2(0.999);
  fit.set_max_residual(0.05);
  return fit;
}

void FillTable(int layers, int seed, v1::DistortionTable& table) {
  v1::Quantizer::Kind kind = table.quantizer().kind();
  for (int width = 1; width <= kMaxWidth; ++width) {
    table.add_widths(width);
    uint32_t bytes = static_cast<uint32_t>((width + OverheadBits(kind)) *
                                           kHeadDim * kPageTokens / 8);
    table.add_key_page_bytes(bytes);
    table.add_value_page_bytes(bytes);
  }
  for (int group = 0; group < layers * kHeads * 2; ++group) {
    double weight = Sensitivity(group, layers, seed);
    for (int width = 1; width <= kMaxWidth; ++width) {
      double mse = Alpha(kind) * std::pow(Beta(kind), -width);
      table.add_mse(mse);
      table.add_c1(0.8 * weight * mse);
      table.add_c2(weight * mse);
      table.add_c2_standard_error(0.2 * weight * mse);
    }
    *table.add_group_fits() = Fit(Alpha(kind), Beta(kind));
  }
  *table.mutable_key_fit() = Fit(Alpha(kind), Beta(kind));
  *table.mutable_value_fit() = Fit(Alpha(kind), Beta(kind));
  for (v1::GainPrediction* gain :
       {table.mutable_key_gain(), table.mutable_value_gain()}) {
    gain->set_am_gm(3.25);
    v1::BudgetGain& budget = *gain->add_budgets();
    budget.set_code_bits(2.5);
    budget.set_gain(1.75);
  }
  table.set_page_tokens(kPageTokens);
  table.set_format_version(1);
}

}  // namespace

v1::Calibration SampleCalibration(const std::vector<std::string>& quantizers,
                                  int layers, int seed) {
  v1::Calibration calibration;
  v1::ModelGeometry& geometry = *calibration.mutable_geometry();
  geometry.set_layers(layers);
  geometry.set_kv_heads(kHeads);
  geometry.set_query_heads(3 * kHeads);
  geometry.set_head_dim(kHeadDim);
  v1::CaptureInfo& capture = *calibration.mutable_capture();
  capture.set_sequences(16);
  capture.set_sequence_length(512);
  capture.set_sink_tokens(4);
  capture.set_dtype("float32");
  capture.set_device("cpu");
  capture.set_mean_nll(3.19);
  capture.add_software("sample 1");
  capture.set_sweep_device("cpu");
  capture.add_sweep_software("ratequant 0");
  for (int group = 0; group < layers * kHeads * 2; ++group) {
    v1::GroupStatistics& statistics = *calibration.add_groups();
    statistics.set_g2(Sensitivity(group, layers, seed) / kHeadDim);
    statistics.set_x2(1);
  }
  for (const std::string& text : quantizers) {
    v1::DistortionTable& table = *calibration.add_tables();
    auto quantizer = client::QuantizerFromText(text);
    if (!quantizer.ok()) std::abort();
    *table.mutable_quantizer() = *quantizer;
    FillTable(layers, seed, table);
  }
  calibration.add_warnings("made up for a test");
  return calibration;
}

}  // namespace ratequant::testing
