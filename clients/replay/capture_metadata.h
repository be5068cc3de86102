#ifndef RATEQUANT_CLIENTS_REPLAY_CAPTURE_METADATA_H_
#define RATEQUANT_CLIENTS_REPLAY_CAPTURE_METADATA_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ratequant/kv/attention.h"
#include "ratequant/kv/kv_layout.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::replay {

// Version of recorded captures (clients/python/ratequant/capture/CAPTURE.md).
inline constexpr int kCaptureVersion = 1;

// What a capture was made of.
struct CaptureInfo {
  std::string model;
  kv::KvGeometry geometry;  // query_heads is set
  int sequences = 0;
  int tokens = 0;  // of each sequence
  kv::DType dtype = kv::DType::kFloat32;
  std::vector<kv::AttentionParams> attention;  // [layers]
  bool gradients = false;
};

// The metadata of a capture, all of CaptureInfo but `gradients`.
// INVALID_ARGUMENT names the key that is missing or has a value that isn't
// supported, and what is.
absl::StatusOr<CaptureInfo> ParseCaptureMetadata(
    const std::map<std::string, std::string>& metadata);

}  // namespace ratequant::replay

#endif  // RATEQUANT_CLIENTS_REPLAY_CAPTURE_METADATA_H_
