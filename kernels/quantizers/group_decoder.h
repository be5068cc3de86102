#ifndef RATEQUANT_KERNELS_QUANTIZERS_GROUP_DECODER_H_
#define RATEQUANT_KERNELS_QUANTIZERS_GROUP_DECODER_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ratequant/kv/codec.h"
#include "ratequant/kv/distortion.h"

namespace ratequant::kv {

// What a sweep's quantizers make of a group's rows: every (quantizer, width)
// in turn, quantizers first. Immutable and thread-safe.
class GroupDecoder {
 public:
  // Of all pairs for `tensor`. INVALID_ARGUMENT for a quantizer that has no
  // codec.
  static absl::StatusOr<GroupDecoder> Create(
      const DistortionSweep::Options& options, Tensor tensor);

  int size() const { return static_cast<int>(codecs_.size()); }

  // The rows of one head, `tokens` of them, as pair `index` decodes them; sinks
  // are as they were. `out` is [tokens, head_dim].
  absl::Status Decode(int index, const ConstRows& rows, int tokens,
                      absl::Span<float> out) const;

 private:
  explicit GroupDecoder(const DistortionSweep::Options& options);

  int head_dim_ = 0;
  int sink_tokens_ = 0;
  int block_tokens_ = 0;
  std::vector<std::unique_ptr<Codec>> codecs_;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_GROUP_DECODER_H_
