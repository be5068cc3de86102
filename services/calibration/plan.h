#ifndef RATEQUANT_SERVICES_CALIBRATION_PLAN_H_
#define RATEQUANT_SERVICES_CALIBRATION_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "ratequant/kv/attention.h"
#include "ratequant/kv/device.h"
#include "ratequant/kv/quantizer.h"
#include "ratequant/kv/tensor.h"
#include "ratequant/v1/calibration_service.pb.h"

namespace ratequant::calibration {

inline constexpr uint32_t kMaxSequences = 4096;
inline constexpr uint32_t kMaxSequenceLength = 32768;
// Lengths are multiples of it, and of kivi's groups.
inline constexpr uint32_t kSequenceGranule = 32;
inline constexpr int kMaxQuantizers = 16;
inline constexpr uint32_t kMaxLayers = 1024;
inline constexpr uint32_t kMaxGroups = 65536;  // layers * kv_heads * 2
// groups * quantizers: keeps a calibration below the registry's 64 MiB.
inline constexpr uint64_t kMaxCurves = uint64_t{1} << 18;
inline constexpr uint64_t kMaxLayerBytes = uint64_t{4} << 30;
inline constexpr uint64_t kDefaultMemoryLimit = uint64_t{4} << 30;
// Newest tokens of a query that d2 takes as exact: a cache's default window.
inline constexpr uint32_t kAttentionWindow = 32;
// Fewer calibration tokens than this raise a warning.
inline constexpr uint64_t kFewTokens = 4096;
// What the registry takes of provenance: entries, and bytes of each.
inline constexpr int kMaxSoftware = 64;
inline constexpr size_t kMaxProvenanceBytes = 1024;

// One calibration, every default filled in.
struct CalibrationPlan {
  std::string model_id;  // without "models/"
  // Canonical, in the order of the request. Empty: every default quantizer
  // that supports the head_dim, which isn't known before the capture opens.
  std::vector<kv::QuantizerSpec> quantizers;
  uint32_t sequences = 0;
  uint32_t sequence_length = 0;
  uint32_t sink_tokens = 0;
  uint32_t page_tokens = 0;  // in the page that byte counts are for
  bool subtract_means = false;
  bool attention_output = false;  // measure d2 too
  // What it may keep in the worker's memory (memory_need.h); the worker's, not
  // the request's.
  uint64_t memory_bytes = kDefaultMemoryLimit;

  uint64_t tokens() const { return uint64_t{sequences} * sequence_length; }
};

// Checks a request. INVALID_ARGUMENT: INVALID_MODEL_ID, UNSUPPORTED_QUANTIZER,
// UNSUPPORTED_SHAPE (sequences, their length, sinks, pages), with the field.
// `prefix` is what stands before "model" and "options" in the request's field
// paths.
absl::StatusOr<CalibrationPlan> MakePlan(const std::string& model,
                                         const v1::CalibrateOptions& options,
                                         absl::string_view prefix);

// INVALID_ARGUMENT UNSUPPORTED_SHAPE, naming what isn't supported and what is:
// a count of 0, query heads that the KV heads don't divide, more than the
// limits above.
absl::Status CheckGeometry(const v1::ModelGeometry& geometry,
                           const CalibrationPlan& plan);

// What is wrong with provenance that came from outside, by field; empty when it
// can be stored: digests are 64 lower-case hexadecimal digits or empty, the
// loss is finite and not negative, texts are short.
struct ProvenanceProblem {
  std::string field;  // of v1::CaptureInfo
  std::string description;
};
absl::optional<ProvenanceProblem> CheckProvenance(const v1::CaptureInfo& info);

// The kernels' form of what attention of a layer computes; what is wrong with
// it as INVALID_ARGUMENT without a reason.
absl::StatusOr<kv::AttentionParams> ToAttentionParams(
    const v1::LayerAttention& attention, const v1::ModelGeometry& geometry);

// Which quantizers to measure on a model.
struct QuantizerChoice {
  std::vector<kv::QuantizerSpec> quantizers;
  std::vector<std::string> warnings;  // defaults that were left out, and why
};

// The plan's quantizers, or the defaults that support the model's head_dim.
// INVALID_ARGUMENT: UNSUPPORTED_QUANTIZER when one that was asked for doesn't
// support it, UNSUPPORTED_SHAPE when no default does or when there are more
// groups times quantizers than kMaxCurves.
absl::StatusOr<QuantizerChoice> ChooseQuantizers(
    const CalibrationPlan& plan, const v1::ModelGeometry& geometry);

// The kernel's form of a canonical quantizer, and back.
kv::QuantizerSpec ToSpec(const v1::Quantizer& quantizer);
v1::Quantizer ToProto(const kv::QuantizerSpec& spec);

// "float32", "float16" or "bfloat16"; anything else is INVALID_ARGUMENT without
// a reason.
absl::StatusOr<kv::DType> ParseDType(absl::string_view name);

// "cpu", "cuda" (the first GPU) or "cuda:N"; anything else is INVALID_ARGUMENT
// without a reason.
absl::StatusOr<kv::Device> ParseDevice(absl::string_view name);

// Bytes of one tensor, [kv_heads, sequence_length, head_dim].
uint64_t TensorBytes(const v1::ModelGeometry& geometry,
                     uint32_t sequence_length, kv::DType dtype);

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_PLAN_H_
