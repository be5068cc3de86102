#ifndef RATEQUANT_KV_DISTORTION_H_
#define RATEQUANT_KV_DISTORTION_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ratequant/kv/attention.h"
#include "ratequant/kv/codec.h"
#include "ratequant/kv/device.h"
#include "ratequant/kv/quantizer.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::kv {

// Distortion of all groups under one quantizer. Arrays are
// [num_groups][widths], row-major; group = (layer * kv_heads + head) * 2 + (V).
// With e = dequantized - original and y the gradient of the summed loss:
struct DistortionTable {
  QuantizerSpec quantizer;
  std::vector<int> widths;  // ascending
  std::vector<double> mse;  // mean over tokens and channels of e^2
  std::vector<double> c1;   // mean over tokens of sum over channels of (y e)^2
  std::vector<double> c2;   // mean over tokens of (sum over channels of y e)^2
  // Standard error of c2 as a mean. Tokens of one sequence are correlated, so
  // it comes from the spread of the sequences' means, each an independent
  // sample: their standard deviation (n - 1) over the square root of their
  // number. Empty when there is only one sequence, or they differ in length.
  std::vector<double> c2_standard_error;
  // Mean over tokens of (sum over the group's query heads and channels of
  // gradient of the output * change of the output)^2: the attention-output
  // distortion. Empty unless it is measured.
  std::vector<double> d2;
};

// One layer of one sequence, as attention has it. All are dense, of `dtype`, in
// host memory; token 0 is the first of the sequence.
struct AttentionCapture {
  int layer = 0;
  int tokens = 0;
  const void* keys = nullptr;              // [kv_heads, tokens, head_dim]
  const void* values = nullptr;            // as keys
  const void* queries = nullptr;           // [query_heads, tokens, head_dim]
  const void* output_gradients = nullptr;  // as queries
  DType dtype = DType::kFloat32;
  AttentionParams params;  // query_heads are the sweep's
};

// Everything a calibration measures (method: "Distortion, weights, curves";
// paper section 3.3). Sink tokens are left out.
struct DistortionTables {
  std::vector<double> g2;  // [num_groups] mean over tokens, channels of y^2
  std::vector<double> x2;  // [num_groups] mean over tokens, channels of x^2
  std::vector<DistortionTable> tables;
};

// Accumulates distortion over layers and sequences: every quantizer and width
// in one pass over the tensors. Sums don't depend on the number of threads or
// their order: the same input gives the same bits on the same device.
//
// The reference backend sums in double. The others sum a row, and at most 128
// of its kind, in fp32 and the rest in double, with which g2, x2, mse and c1
// are within 1e-5 of it, and c2 within 1e-5 * (c2 + sqrt(c2 * head_dim * c1)),
// its rows' sums having signs. Decoded values are the codec's to the bit.
//
// Thread-compatible: one call at a time.
class DistortionSweep {
 public:
  // The shape of what is measured, and everything it is measured for.
  struct Options {
    int layers = 0;
    int kv_heads = 0;
    int head_dim = 0;
    int sink_tokens = 4;
    std::vector<QuantizerSpec> quantizers;  // at least one
    std::vector<int> widths;                // ascending, 1..8; empty: 1..8
    Device device = {};
    int threads = 0;                   // CPU; 0: one per core
    Backend backend = Backend::kSimd;  // CPU
    // Above 0, a multiple of kv_heads: d2 is measured, by AddAttention.
    int query_heads = 0;
    // The newest tokens of every query, its own included, that d2 takes as
    // exact, as a cache keeps them.
    int attention_window = 32;
  };

  // INVALID_ARGUMENT names the value that isn't supported and what is.
  // UNAVAILABLE when there is no such device, saying what there is.
  static absl::StatusOr<std::unique_ptr<DistortionSweep>> Create(
      const Options& options);

  virtual ~DistortionSweep() = default;

  // Adds one layer of one whole sequence. `values` and `gradients` are
  // [kv_heads, tokens, head_dim], dense, of `dtype`; token 0 is the first of
  // the sequence. On CUDA they may be in host memory, which is copied, or on
  // the device, written by work that is done or that the default stream waits
  // for; they are free again when the call returns. tokens must be above
  // sink_tokens and a multiple of 32 and of every kivi group size;
  // INVALID_ARGUMENT otherwise, and for a layer, tensor, dtype or pointer that
  // isn't valid. DATA_LOSS for a NaN or Inf (or, in values, a magnitude above
  // 65504), naming layer, head, tensor, token and channel, and whether it is a
  // gradient; nothing is added then.
  virtual absl::Status Add(int layer, Tensor tensor, int tokens,
                           const void* values, const void* gradients,
                           DType dtype) = 0;

  // Adds one layer of one sequence to d2; Options::query_heads must be above 0.
  // Attention is computed again for every group, quantizer and width. A query at
  // t sees the tokens s <= t that its layer's window allows; of those, sinks and
  // s > t - attention_window are exact, all others are the group's decoded ones.
  // Unlike in a cache, K of kivi counts as quantized token by token, not when
  // its block has left the window whole. The reference computes in double; the
  // others in fp32, with which d2 is within 1e-3 of it. The same input gives the
  // same bits on the same device.
  //
  // tokens as in Add, and above sink_tokens + attention_window. Errors as Add's.
  virtual absl::Status AddAttention(const AttentionCapture& capture) = 0;

  // The means over everything added. FAILED_PRECONDITION when a group got
  // nothing, or not as many tokens as the others; DATA_LOSS when all values of
  // a tensor of a layer were zero, naming it (a dead tensor means a broken
  // capture).
  virtual absl::StatusOr<DistortionTables> Finish() const = 0;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KV_DISTORTION_H_
