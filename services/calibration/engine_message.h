#ifndef RATEQUANT_SERVICES_CALIBRATION_ENGINE_MESSAGE_H_
#define RATEQUANT_SERVICES_CALIBRATION_ENGINE_MESSAGE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ratequant/v1/calibration_service.pb.h"
#include "ratequant/v1/model.pb.h"

namespace ratequant::calibration {

// The messages of the capture engine's protocol; ENGINE.md says what they mean.

inline constexpr int kEngineProtocol = 1;

// Longest line either side may send, in bytes, newline included.
inline constexpr size_t kMaxEngineLine = 64 * 1024;

struct HelloMessage {
  v1::ModelGeometry geometry;
  std::string dtype;
  std::string device;
  uint32_t sequences = 0;
  uint32_t sequence_length = 0;
  std::string model_digest;
  std::string tokenizer_digest;
  std::string token_digest;
  std::vector<std::string> software;
};

struct LayerMessage {
  uint32_t sequence = 0;
  uint32_t layer = 0;
  uint32_t slot = 0;
  v1::LayerAttention attention;  // softmax_scale 0 when it isn't said
};

struct HeartbeatMessage {
  std::string note;
};

struct SequenceMessage {
  uint32_t sequence = 0;
  double loss_sum = 0;  // nats
  uint64_t loss_tokens = 0;
};

// What the engine had at its highest, in bytes; 0 when it doesn't say.
struct DoneMessage {
  uint64_t peak_memory = 0;
  uint64_t peak_device_memory = 0;
};

struct ErrorMessage {
  std::string reason;
  std::string message;
};

using EngineMessage = std::variant<HelloMessage, LayerMessage, HeartbeatMessage,
                                   SequenceMessage, DoneMessage, ErrorMessage>;

// Parses one line, without its newline. INVALID_ARGUMENT says what is wrong
// with it and quotes its beginning. Checks types and ranges of single fields;
// what a message may say at this point of the conversation is the caller's to
// check.
absl::StatusOr<EngineMessage> ParseEngineMessage(absl::string_view line);

// The `start` and `release` messages, newline included.
std::string StartMessage(const std::string& segment, uint32_t slots,
                         uint64_t slot_bytes);
std::string ReleaseMessage(uint32_t slot);

}  // namespace ratequant::calibration

#endif  // RATEQUANT_SERVICES_CALIBRATION_ENGINE_MESSAGE_H_
