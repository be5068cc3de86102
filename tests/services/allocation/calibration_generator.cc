#include "tests/services/allocation/calibration_generator.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>

#include "ratequant/kv/codec.h"
#include "ratequant/kv/quantizer.h"
#include "ratequant/kv/tensor.h"
#include "services/common/quantizers.h"

namespace ratequant::testing {
namespace {

using v1::Quantizer;

constexpr int kWidths = 8;

// Relative distortion of a unit of variance at a width.
double Shape(Quantizer::Kind kind, int width) {
  if (kind == Quantizer::TURBOQUANT) return 1.5 * std::pow(3.6, -width);
  const double levels = std::pow(2.0, width) - 1;  // min/max steps
  const double spread = kind == Quantizer::KIVI     ? 1.0
                        : kind == Quantizer::QUAROT ? 1.4
                                                    : 2.2;
  return spread / (levels * levels);
}

// As the codec lays a page of one group out.
uint32_t PageBytes(const Quantizer& quantizer,
                   const CalibrationSpec& calibration, int width,
                   kv::Tensor tensor) {
  const auto spec = kv::ParseQuantizer(QuantizerText(quantizer));
  if (!spec.ok()) std::abort();
  const auto layout = kv::ComputeSectionLayout(
      *spec, tensor, width, static_cast<int>(calibration.head_dim),
      static_cast<int>(calibration.page_tokens));
  if (!layout.ok()) std::abort();
  return static_cast<uint32_t>(layout->section_bytes);
}

v1::CurveFit Fit(const std::vector<double>& distortion) {
  double mean = 0, product = 0, squares = 0;
  for (int b = 2; b <= 6; ++b) mean += std::log(distortion[b - 1]) / 5;
  for (int b = 2; b <= 6; ++b) {
    product += (b - 4) * std::log(distortion[b - 1]);
  }
  const double slope = product / 10;
  double residuals = 0, largest = 0;
  for (int b = 2; b <= 6; ++b) {
    const double value = std::log(distortion[b - 1]);
    const double residual = value - (mean + slope * (b - 4));
    residuals += residual * residual;
    squares += (value - mean) * (value - mean);
    largest = std::max(largest, std::abs(residual));
  }
  v1::CurveFit fit;
  fit.set_alpha(std::exp(mean - 4 * slope));
  fit.set_beta(std::exp(-slope));
  fit.set_r2(1 - residuals / squares);
  fit.set_max_residual(largest);
  return fit;
}

struct GroupScale {
  double energy = 0;    // mean square of the values
  double gradient = 0;  // mean square of the gradient
};

void FillTable(const std::vector<GroupScale>& groups,
               const CalibrationSpec& spec, std::mt19937* random,
               v1::DistortionTable* table) {
  std::lognormal_distribution<double> noise(0, 0.05), wide(0, 0.3);
  const Quantizer& q = table->quantizer();
  std::vector<double> pooled[2] = {std::vector<double>(kWidths),
                                   std::vector<double>(kWidths)};
  for (int width = 1; width <= kWidths; ++width) {
    table->add_widths(width);
    table->add_key_page_bytes(PageBytes(q, spec, width, kv::Tensor::kKey));
    table->add_value_page_bytes(PageBytes(q, spec, width, kv::Tensor::kValue));
  }
  for (size_t g = 0; g < groups.size(); ++g) {
    std::vector<double> curve;
    const double coupling = wide(*random);
    for (int width = 1; width <= kWidths; ++width) {
      const double mse =
          groups[g].energy * Shape(q.kind(), width) * noise(*random);
      const double projected =
          spec.head_dim * groups[g].gradient * mse * coupling;
      curve.push_back(mse);
      pooled[g % 2][width - 1] += mse;
      table->add_mse(mse);
      table->add_c1(projected * noise(*random));
      table->add_c2(projected * noise(*random));
    }
    *table->add_group_fits() = Fit(curve);
  }
  *table->mutable_key_fit() = Fit(pooled[0]);
  *table->mutable_value_fit() = Fit(pooled[1]);
  table->set_page_tokens(spec.page_tokens);
  table->set_format_version(1);
}

}  // namespace

Quantizer DefaultQuantizer(Quantizer::Kind kind) {
  Quantizer quantizer;
  quantizer.set_kind(kind);
  if (kind == Quantizer::KIVI) quantizer.set_group_size(32);
  if (kind == Quantizer::TURBOQUANT) {
    quantizer.set_key_scale(Quantizer::L2);
    quantizer.set_value_scale(Quantizer::UNBIASED);
  }
  return quantizer;
}

std::vector<Quantizer> AllQuantizers() {
  return {DefaultQuantizer(Quantizer::RTN), DefaultQuantizer(Quantizer::KIVI),
          DefaultQuantizer(Quantizer::QUAROT),
          DefaultQuantizer(Quantizer::TURBOQUANT)};
}

v1::Calibration MakeCalibration(const CalibrationSpec& spec) {
  std::mt19937 random(spec.seed);
  std::lognormal_distribution<double> energy(0, 1), gradient(-9, 1.5);
  v1::Calibration calibration;
  v1::ModelGeometry* geometry = calibration.mutable_geometry();
  geometry->set_layers(spec.layers);
  geometry->set_kv_heads(spec.kv_heads);
  geometry->set_query_heads(spec.query_heads == 0 ? spec.kv_heads * 3
                                                  : spec.query_heads);
  geometry->set_head_dim(spec.head_dim);
  v1::CaptureInfo* capture = calibration.mutable_capture();
  capture->set_sequences(16);
  capture->set_sequence_length(512);
  capture->set_sink_tokens(spec.sink_tokens);
  capture->set_dtype("float32");
  capture->set_device("cpu");
  capture->set_mean_nll(3.2);
  capture->add_software("generator " + std::to_string(spec.seed));
  std::vector<GroupScale> groups;
  for (uint32_t g = 0; g < spec.layers * spec.kv_heads * 2; ++g) {
    const bool key = g % 2 == 0;
    groups.push_back({energy(random) * (key ? 5 : 1), gradient(random)});
    v1::GroupStatistics* statistics = calibration.add_groups();
    statistics->set_x2(groups.back().energy);
    statistics->set_g2(groups.back().gradient);
  }
  for (const Quantizer& quantizer : spec.quantizers) {
    v1::DistortionTable* table = calibration.add_tables();
    *table->mutable_quantizer() = quantizer;
    FillTable(groups, spec, &random, table);
  }
  return calibration;
}

const std::vector<KnownModel>& KnownModels() {
  static const auto* const models = new std::vector<KnownModel>{
      {"Llama-3.2-1B", 16, 8, 32, 64},      {"Llama-3.2-3B", 28, 8, 24, 128},
      {"Llama-3.1-8B", 32, 8, 32, 128},     {"Llama-3.1-70B", 80, 8, 64, 128},
      {"Llama-3.1-405B", 126, 8, 128, 128}, {"Llama-2-7B", 32, 32, 32, 128},
      {"Llama-2-13B", 40, 40, 40, 128},     {"Qwen3-0.6B", 28, 8, 16, 128},
      {"Qwen3-1.7B", 28, 8, 16, 128},       {"Qwen3-4B", 36, 8, 32, 128},
      {"Qwen3-8B", 36, 8, 32, 128},         {"Qwen3-14B", 40, 8, 40, 128},
      {"Qwen3-32B", 64, 8, 64, 128},        {"Qwen3-30B-A3B", 48, 4, 32, 128},
      {"Qwen3-235B-A22B", 94, 4, 64, 128},  {"Qwen2.5-7B", 28, 4, 28, 128},
      {"Qwen2.5-72B", 80, 8, 64, 128},      {"Mistral-7B", 32, 8, 32, 128},
      {"Mixtral-8x7B", 32, 8, 32, 128},     {"Mistral-Large", 88, 8, 96, 128},
      {"gemma-2-2b", 26, 4, 8, 256},        {"gemma-2-9b", 42, 8, 16, 256},
      {"gemma-2-27b", 46, 16, 32, 128},     {"gemma-3-1b", 26, 1, 4, 256},
      {"gemma-3-12b", 48, 8, 16, 256},      {"gemma-3-27b", 62, 16, 32, 128},
      {"Phi-3-mini", 32, 32, 32, 96},       {"phi-4", 40, 10, 40, 128},
      {"SmolLM2-135M", 30, 3, 9, 64},       {"SmolLM2-1.7B", 24, 32, 32, 64},
      {"gpt-oss-20b", 24, 8, 64, 64},       {"gpt-oss-120b", 36, 8, 64, 64},
  };
  return *models;
}

CalibrationSpec SpecOf(const KnownModel& model, uint32_t seed) {
  CalibrationSpec spec{.layers = model.layers,
                       .kv_heads = model.kv_heads,
                       .query_heads = model.query_heads,
                       .head_dim = model.head_dim,
                       .quantizers = {},
                       .seed = seed};
  for (const Quantizer& quantizer : AllQuantizers()) {
    const auto parsed = kv::ParseQuantizer(QuantizerText(quantizer));
    if (parsed.ok() &&
        kv::ValidateQuantizer(*parsed, static_cast<int>(model.head_dim),
                              static_cast<int>(spec.page_tokens))
            .ok()) {
      spec.quantizers.push_back(quantizer);
    }
  }
  return spec;
}

FleetModel MakeFleetModel(uint32_t i) {
  const KnownModel& base = KnownModels()[i % KnownModels().size()];
  return {std::string(base.id) + ".ft-" + std::to_string(i),
          SpecOf(base, i + 1)};
}

}  // namespace ratequant::testing
