#include "services/calibration/memory_need.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "ratequant/kv/quantizer.h"
#include "services/common/status.h"

namespace ratequant::calibration {
namespace {

// One sum of the sweep becomes a table's entry, a field of a message, of its
// copies and of its serialized forms.
constexpr uint64_t kBytesPerSum = 80;
// A group's fit of one quantizer: a message, and what it takes in the copies.
constexpr uint64_t kBytesPerCurve = 256;
// A mean, in the messages and their serialized forms.
constexpr uint64_t kBytesPerMean = 24;
// With d2: decoded rows of a head, that the sweep keeps at a time.
constexpr uint64_t kDecodedBytes = uint64_t{64} << 20;

double Mebibytes(uint64_t bytes) {
  return static_cast<double>(bytes) / (1 << 20);
}

}  // namespace

uint64_t TableBytes(const CalibrationPlan& plan,
                    const v1::ModelGeometry& geometry) {
  const uint64_t groups = uint64_t{geometry.layers()} * geometry.kv_heads() * 2;
  const uint64_t quantizers = plan.quantizers.empty()
                                  ? kv::DefaultQuantizers().size()
                                  : plan.quantizers.size();
  // Three distortions at 8 widths, or four, and two statistics of the group.
  const uint64_t distortions = plan.attention_output ? 4 : 3;
  const uint64_t sums = quantizers * 8 * distortions + 2;
  // The sweep measures blocks of 32 tokens before it adds them up.
  const uint64_t blocks =
      uint64_t{geometry.kv_heads()} * plan.sequence_length / kSequenceGranule;
  // Two tensors in fp32, and a mean a channel with its copies.
  const uint64_t means =
      plan.subtract_means
          ? uint64_t{geometry.head_dim()} *
                (uint64_t{geometry.kv_heads()} * plan.sequence_length * 8 +
                 groups * kBytesPerMean)
          : 0;
  return means + groups * (sums * kBytesPerSum + quantizers * kBytesPerCurve) +
         blocks * sums * sizeof(double) +
         (plan.attention_output ? kDecodedBytes : 0);
}

absl::StatusOr<uint64_t> LayersInMemory(const CalibrationPlan& plan,
                                        const v1::ModelGeometry& geometry,
                                        uint64_t layer_bytes) {
  const uint64_t tables = TableBytes(plan, geometry);
  if (tables <= plan.memory_bytes &&
      layer_bytes <= plan.memory_bytes - tables) {
    return (plan.memory_bytes - tables) / layer_bytes;
  }
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "MEMORY_LIMIT_EXCEEDED",
      absl::StrFormat(
          "one layer of %d tokens takes %.1f MiB and the tables of %d layers "
          "take %.1f MiB; a calibration may keep %.1f MiB, its share of the "
          "worker's --memory-limit: use shorter sequences, fewer quantizers or "
          "a larger limit",
          plan.sequence_length, Mebibytes(layer_bytes), geometry.layers(),
          Mebibytes(tables), Mebibytes(plan.memory_bytes)));
}

}  // namespace ratequant::calibration
