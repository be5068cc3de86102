#include "services/calibration/plan.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "services/common/quantizers.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"

namespace ratequant::calibration {
namespace {

constexpr uint32_t kDefaultSequences = 16;
constexpr uint32_t kDefaultSequenceLength = 512;
constexpr uint32_t kDefaultSinkTokens = 4;
constexpr uint32_t kDefaultPageTokens = 32;

std::string Option(absl::string_view prefix, absl::string_view name) {
  return absl::StrCat(prefix, "options.", name);
}

absl::Status UnsupportedShape(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "UNSUPPORTED_SHAPE",
                   message);
}

absl::StatusOr<std::string> ModelId(const std::string& model,
                                    absl::string_view prefix) {
  absl::string_view id = model;
  if (absl::ConsumePrefix(&id, "models/") && IsModelId(id)) {
    return std::string(id);
  }
  return FieldError("INVALID_MODEL_ID", absl::StrCat(prefix, "model"),
                    absl::StrCat("'", model,
                                 "' is not models/{model} with {model} like "
                                 "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"));
}

// Consecutive tokens that share a scale; all are powers of two.
uint32_t GroupTokens(const kv::QuantizerSpec& spec) {
  return spec.kind == kv::QuantizerKind::kKivi
             ? static_cast<uint32_t>(spec.group_size)
             : 1;
}

absl::StatusOr<std::vector<kv::QuantizerSpec>> Quantizers(
    const v1::CalibrateOptions& options, absl::string_view prefix) {
  const std::string list = Option(prefix, "quantizers");
  if (options.quantizers_size() > kMaxQuantizers) {
    return FieldError("UNSUPPORTED_QUANTIZER", list,
                      absl::StrCat(options.quantizers_size(),
                                   " quantizers; at most ", kMaxQuantizers));
  }
  std::vector<kv::QuantizerSpec> specs;
  for (int i = 0; i < options.quantizers_size(); ++i) {
    const std::string field = absl::StrCat(list, "[", i, "]");
    auto canonical = CanonicalQuantizer(options.quantizers(i), field);
    if (!canonical.ok()) return canonical.status();
    const kv::QuantizerSpec spec = ToSpec(*canonical);
    if (std::find(specs.begin(), specs.end(), spec) != specs.end()) {
      return FieldError(
          "UNSUPPORTED_QUANTIZER", field,
          absl::StrCat(kv::QuantizerName(spec), " is listed twice"));
    }
    specs.push_back(spec);
  }
  return specs;
}

bool IsPageTokens(uint32_t tokens) {
  return tokens >= 16 && tokens <= 128 && (tokens & (tokens - 1)) == 0;
}

absl::Status CheckPages(const CalibrationPlan& plan, absl::string_view prefix) {
  if (!IsPageTokens(plan.page_tokens)) {
    return FieldError("UNSUPPORTED_SHAPE", Option(prefix, "page_tokens"),
                      absl::StrCat(plan.page_tokens,
                                   " tokens in a page; use 16, 32, 64 or 128"));
  }
  for (size_t i = 0; i < plan.quantizers.size(); ++i) {
    const kv::QuantizerSpec& spec = plan.quantizers[i];
    if (plan.page_tokens % GroupTokens(spec) == 0) continue;
    return FieldError(
        "UNSUPPORTED_QUANTIZER",
        absl::StrCat(Option(prefix, "quantizers"), "[", i, "]"),
        absl::StrCat(kv::QuantizerName(spec), " doesn't fit into pages of ",
                     plan.page_tokens, " tokens; use page_tokens of at least ",
                     GroupTokens(spec), ", or a smaller group_size"));
  }
  return absl::OkStatus();
}

// d2 says nothing of sequences that never leave the sinks and the window.
absl::Status CheckAttention(const CalibrationPlan& plan,
                            absl::string_view prefix) {
  if (!plan.attention_output) return absl::OkStatus();
  if (plan.subtract_means) {
    return FieldError("INVALID_ARGUMENT", Option(prefix, "attention_output"),
                      "isn't measured with subtract_means; leave one out");
  }
  const uint64_t exact = uint64_t{plan.sink_tokens} + kAttentionWindow;
  if (plan.sequence_length > exact) return absl::OkStatus();
  return FieldError("UNSUPPORTED_SHAPE", Option(prefix, "attention_output"),
                    absl::StrCat("needs sequences above the ", exact,
                                 " tokens of sinks and window; these have ",
                                 plan.sequence_length));
}

absl::Status CheckSizes(const CalibrationPlan& plan, absl::string_view prefix) {
  if (plan.sequences > kMaxSequences) {
    return FieldError(
        "UNSUPPORTED_SHAPE", Option(prefix, "sequences"),
        absl::StrCat(plan.sequences, " sequences; at most ", kMaxSequences));
  }
  uint32_t granule = kSequenceGranule;
  for (const kv::QuantizerSpec& spec : plan.quantizers) {
    granule = std::max(granule, GroupTokens(spec));
  }
  if (plan.sequence_length % granule != 0 ||
      plan.sequence_length > kMaxSequenceLength) {
    return FieldError(
        "UNSUPPORTED_SHAPE", Option(prefix, "sequence_length"),
        absl::StrCat(plan.sequence_length, " tokens; must be a multiple of ",
                     granule, ", at most ", kMaxSequenceLength));
  }
  if (plan.sink_tokens >= plan.sequence_length) {
    return FieldError(
        "UNSUPPORTED_SHAPE", Option(prefix, "sink_tokens"),
        absl::StrCat(plan.sink_tokens,
                     " sinks leave nothing to measure in sequences of ",
                     plan.sequence_length, " tokens"));
  }
  absl::Status attention = CheckAttention(plan, prefix);
  return attention.ok() ? CheckPages(plan, prefix) : attention;
}

absl::StatusOr<QuantizerChoice> SupportedQuantizers(const CalibrationPlan& plan,
                                                    int head_dim) {
  const int page_tokens = static_cast<int>(plan.page_tokens);
  QuantizerChoice choice;
  for (const kv::QuantizerSpec& spec : plan.quantizers) {
    absl::Status valid = kv::ValidateQuantizer(spec, head_dim, page_tokens);
    if (!valid.ok()) {
      return MakeError(absl::StatusCode::kInvalidArgument,
                       "UNSUPPORTED_QUANTIZER", valid.message(),
                       {{"quantizer", kv::QuantizerName(spec)}});
    }
    choice.quantizers.push_back(spec);
  }
  if (!plan.quantizers.empty()) return choice;
  std::string last_problem;
  for (const kv::QuantizerSpec& spec : kv::DefaultQuantizers()) {
    absl::Status valid = kv::ValidateQuantizer(spec, head_dim, page_tokens);
    if (valid.ok()) {
      choice.quantizers.push_back(spec);
      continue;
    }
    last_problem = std::string(valid.message());
    choice.warnings.push_back(absl::StrCat(
        kv::QuantizerName(spec), " was not measured: ", last_problem, "."));
  }
  if (choice.quantizers.empty()) {
    return UnsupportedShape(absl::StrCat("no quantizer supports head_dim ",
                                         head_dim, ": ", last_problem));
  }
  return choice;
}

}  // namespace

absl::StatusOr<CalibrationPlan> MakePlan(const std::string& model,
                                         const v1::CalibrateOptions& options,
                                         absl::string_view prefix) {
  auto id = ModelId(model, prefix);
  if (!id.ok()) return id.status();
  auto quantizers = Quantizers(options, prefix);
  if (!quantizers.ok()) return quantizers.status();
  CalibrationPlan plan;
  plan.model_id = *id;
  plan.quantizers = *quantizers;
  plan.sequences =
      options.sequences() != 0 ? options.sequences() : kDefaultSequences;
  plan.sequence_length = options.sequence_length() != 0
                             ? options.sequence_length()
                             : kDefaultSequenceLength;
  plan.sink_tokens =
      options.has_sink_tokens() ? options.sink_tokens() : kDefaultSinkTokens;
  plan.page_tokens =
      options.page_tokens() != 0 ? options.page_tokens() : kDefaultPageTokens;
  plan.subtract_means = options.subtract_means();
  plan.attention_output = options.attention_output();
  absl::Status sizes = CheckSizes(plan, prefix);
  if (!sizes.ok()) return sizes;
  return plan;
}

absl::Status CheckGeometry(const v1::ModelGeometry& geometry,
                           const CalibrationPlan& plan) {
  const uint64_t layers = geometry.layers(), heads = geometry.kv_heads();
  if (layers == 0 || layers > kMaxLayers) {
    return UnsupportedShape(
        absl::StrCat(layers, " layers; must be 1 to ", kMaxLayers));
  }
  if (heads == 0 || layers * heads * 2 > kMaxGroups) {
    return UnsupportedShape(
        absl::StrCat(heads,
                     " KV heads; must be at least 1, and layers * "
                     "kv_heads * 2 at most ",
                     kMaxGroups));
  }
  if (geometry.query_heads() == 0 || geometry.query_heads() % heads != 0 ||
      geometry.query_heads() > kMaxGroups) {
    return UnsupportedShape(absl::StrCat(
        geometry.query_heads(), " query heads; must be a multiple of the ",
        heads, " KV heads, at most ", kMaxGroups));
  }
  // K, V and gradients, and Q and the output's gradient.
  const uint64_t heads_a_layer =
      4 * heads + (plan.attention_output ? 2 * geometry.query_heads() : 0);
  // Larger than any quantizer takes; ChooseQuantizers says what they take.
  if (geometry.head_dim() == 0 || geometry.head_dim() > 65536 ||
      heads_a_layer * plan.sequence_length * geometry.head_dim() * 4 >
          kMaxLayerBytes) {
    return UnsupportedShape(absl::StrCat(
        "head_dim ", geometry.head_dim(), ": one layer of ",
        plan.sequence_length, " tokens must take more than 0 and at most ",
        kMaxLayerBytes, " bytes in fp32 (all that is captured)"));
  }
  return absl::OkStatus();
}

absl::StatusOr<kv::AttentionParams> ToAttentionParams(
    const v1::LayerAttention& attention, const v1::ModelGeometry& geometry) {
  kv::AttentionParams params;
  params.query_heads = static_cast<int32_t>(geometry.query_heads());
  params.softmax_scale = static_cast<float>(attention.softmax_scale());
  params.soft_cap = static_cast<float>(attention.soft_cap());
  if (!std::isfinite(params.softmax_scale) || params.softmax_scale <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("softmax_scale ", attention.softmax_scale(),
                     "; must be finite and above 0"));
  }
  if (!std::isfinite(params.soft_cap) || params.soft_cap < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("soft_cap ", attention.soft_cap(),
                     "; must be finite and not negative"));
  }
  // A window beyond any sequence is none.
  params.sliding_window =
      attention.sliding_window() > kMaxSequenceLength
          ? 0
          : static_cast<int32_t>(attention.sliding_window());
  return params;
}

absl::StatusOr<QuantizerChoice> ChooseQuantizers(
    const CalibrationPlan& plan, const v1::ModelGeometry& geometry) {
  auto choice =
      SupportedQuantizers(plan, static_cast<int>(geometry.head_dim()));
  if (!choice.ok()) return choice;
  const uint64_t groups = uint64_t{geometry.layers()} * geometry.kv_heads() * 2;
  if (groups * choice->quantizers.size() > kMaxCurves) {
    return UnsupportedShape(absl::StrCat(
        groups, " groups times ", choice->quantizers.size(),
        " quantizers; at most ", kMaxCurves, ": ask for fewer quantizers"));
  }
  return choice;
}

absl::optional<ProvenanceProblem> CheckProvenance(const v1::CaptureInfo& info) {
  const std::pair<const char*, const std::string*> digests[] = {
      {"model_digest", &info.model_digest()},
      {"tokenizer_digest", &info.tokenizer_digest()},
      {"token_digest", &info.token_digest()}};
  for (const auto& [field, digest] : digests) {
    if (digest->empty() || IsDigest(*digest)) continue;
    return ProvenanceProblem{
        field, "is neither empty nor 64 lower-case hexadecimal digits"};
  }
  if (!std::isfinite(info.mean_nll()) || info.mean_nll() < 0) {
    return ProvenanceProblem{
        "mean_nll", absl::StrCat(info.mean_nll(), " is no loss in nats")};
  }
  if (info.software_size() > kMaxSoftware) {
    return ProvenanceProblem{
        "software",
        absl::StrCat(info.software_size(), " entries; at most ", kMaxSoftware)};
  }
  size_t longest = info.device().size();
  for (const std::string& entry : info.software()) {
    longest = std::max(longest, entry.size());
  }
  if (longest <= kMaxProvenanceBytes) return absl::nullopt;
  return ProvenanceProblem{
      longest == info.device().size() ? "device" : "software",
      absl::StrCat("has ", longest, " bytes; at most ", kMaxProvenanceBytes)};
}

kv::QuantizerSpec ToSpec(const v1::Quantizer& quantizer) {
  kv::QuantizerSpec spec;
  spec.kind = static_cast<kv::QuantizerKind>(quantizer.kind());
  if (quantizer.kind() == v1::Quantizer::KIVI) {
    spec.group_size = static_cast<int32_t>(quantizer.group_size());
  }
  spec.seed = quantizer.seed();
  if (HasScale(quantizer.kind())) {
    spec.key_scale = static_cast<kv::RowScale>(quantizer.key_scale());
    spec.value_scale = static_cast<kv::RowScale>(quantizer.value_scale());
  }
  return spec;
}

v1::Quantizer ToProto(const kv::QuantizerSpec& spec) {
  v1::Quantizer quantizer;
  quantizer.set_kind(static_cast<v1::Quantizer::Kind>(spec.kind));
  if (spec.kind == kv::QuantizerKind::kKivi) {
    quantizer.set_group_size(spec.group_size);
  }
  quantizer.set_seed(spec.seed);
  if (HasScale(quantizer.kind())) {
    quantizer.set_key_scale(static_cast<v1::Quantizer::Scale>(spec.key_scale));
    quantizer.set_value_scale(
        static_cast<v1::Quantizer::Scale>(spec.value_scale));
  }
  return quantizer;
}

absl::StatusOr<kv::DType> ParseDType(absl::string_view name) {
  if (name == "float32") return kv::DType::kFloat32;
  if (name == "float16") return kv::DType::kFloat16;
  if (name == "bfloat16") return kv::DType::kBFloat16;
  return absl::InvalidArgumentError(
      absl::StrCat("dtype '", name, "'; use float32, float16 or bfloat16"));
}

absl::StatusOr<kv::Device> ParseDevice(absl::string_view name) {
  if (name == "cpu") return kv::Device{};
  kv::Device device = {kv::DeviceKind::kCuda, 0};
  absl::string_view ordinal = name;
  if (name == "cuda" ||
      (absl::ConsumePrefix(&ordinal, "cuda:") &&
       absl::SimpleAtoi(ordinal, &device.ordinal) && device.ordinal >= 0)) {
    return device;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("device '", name, "'; use cpu, cuda or cuda:N"));
}

uint64_t TensorBytes(const v1::ModelGeometry& geometry,
                     uint32_t sequence_length, kv::DType dtype) {
  return uint64_t{geometry.kv_heads()} * sequence_length * geometry.head_dim() *
         kv::ElementSize(dtype);
}

}  // namespace ratequant::calibration
