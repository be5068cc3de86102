#include "services/calibration/engine_message.h"

#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace ratequant::calibration {
namespace {

using Json = nlohmann::json;

constexpr size_t kQuoted = 120;

std::string Quote(absl::string_view line) {
  std::string text = absl::CHexEscape(line.substr(0, kQuoted));
  if (line.size() > kQuoted) absl::StrAppend(&text, "...");
  return absl::StrCat("\"", text, "\"");
}

// Reads fields of one object and remembers the first thing that is wrong, so
// that callers read straight on and check once.
class FieldReader {
 public:
  explicit FieldReader(const Json& object) : object_(object) {}

  const absl::Status& status() const { return status_; }

  uint64_t Unsigned(const char* name, uint64_t max) {
    const Json* field = Find(name);
    if (field == nullptr) return 0;
    if (!field->is_number_unsigned()) {
      return Fail(name, "is not a non-negative integer"), 0;
    }
    const uint64_t value = field->get<uint64_t>();
    if (value > max) return Fail(name, absl::StrCat("is above ", max)), 0;
    return value;
  }

  uint32_t Uint32(const char* name) {
    return static_cast<uint32_t>(
        Unsigned(name, std::numeric_limits<uint32_t>::max()));
  }

  // 0 where there is no such field.
  uint64_t OptionalUnsigned(const char* name, uint64_t max) {
    return object_.contains(name) ? Unsigned(name, max) : 0;
  }

  double Number(const char* name) {
    const Json* field = Find(name);
    if (field == nullptr) return 0;
    if (!field->is_number()) return Fail(name, "is not a number"), 0;
    return field->get<double>();
  }

  std::string String(const char* name) {
    const Json* field = Find(name);
    if (field == nullptr) return "";
    if (!field->is_string()) return Fail(name, "is not a string"), "";
    return field->get<std::string>();
  }

  bool Has(const char* name) const { return object_.contains(name); }

  std::vector<std::string> Strings(const char* name) {
    const Json* field = Find(name);
    if (field == nullptr) return {};
    std::vector<std::string> strings;
    if (!field->is_array()) return Fail(name, "is not a list"), strings;
    for (const Json& item : *field) {
      if (!item.is_string()) return Fail(name, "holds a non-string"), strings;
      strings.push_back(item.get<std::string>());
    }
    return strings;
  }

  const Json* Object(const char* name) {
    const Json* field = Find(name);
    if (field == nullptr || field->is_object()) return field;
    return Fail(name, "is not an object"), nullptr;
  }

 private:
  const Json* Find(const char* name) {
    auto it = object_.find(name);
    if (it == object_.end()) return Fail(name, "is missing"), nullptr;
    return &*it;
  }

  void Fail(const char* name, absl::string_view what) {
    if (!status_.ok()) return;
    status_ =
        absl::InvalidArgumentError(absl::StrCat("field '", name, "' ", what));
  }

  const Json& object_;
  absl::Status status_;
};

absl::StatusOr<EngineMessage> ParseHello(FieldReader fields) {
  const uint64_t protocol = fields.Uint32("protocol");
  if (fields.status().ok() && protocol != kEngineProtocol) {
    return absl::InvalidArgumentError(
        absl::StrCat("the engine speaks protocol ", protocol,
                     ", this worker speaks ", kEngineProtocol));
  }
  HelloMessage hello;
  if (const Json* object = fields.Object("geometry")) {
    FieldReader geometry(*object);
    hello.geometry.set_layers(geometry.Uint32("layers"));
    hello.geometry.set_kv_heads(geometry.Uint32("kv_heads"));
    hello.geometry.set_query_heads(geometry.Uint32("query_heads"));
    hello.geometry.set_head_dim(geometry.Uint32("head_dim"));
    if (!geometry.status().ok()) return geometry.status();
  }
  hello.dtype = fields.String("dtype");
  hello.device = fields.String("device");
  hello.sequences = fields.Uint32("sequences");
  hello.sequence_length = fields.Uint32("sequence_length");
  hello.model_digest = fields.String("model_digest");
  hello.tokenizer_digest = fields.String("tokenizer_digest");
  hello.token_digest = fields.String("token_digest");
  hello.software = fields.Strings("software");
  if (!fields.status().ok()) return fields.status();
  return hello;
}

absl::StatusOr<EngineMessage> ParseLayer(FieldReader fields) {
  LayerMessage layer;
  layer.sequence = fields.Uint32("sequence");
  layer.layer = fields.Uint32("layer");
  layer.slot = fields.Uint32("slot");
  if (fields.Has("softmax_scale")) {
    layer.attention.set_softmax_scale(fields.Number("softmax_scale"));
    layer.attention.set_soft_cap(fields.Number("soft_cap"));
    layer.attention.set_sliding_window(fields.Uint32("sliding_window"));
  }
  if (!fields.status().ok()) return fields.status();
  return layer;
}

absl::StatusOr<EngineMessage> ParseHeartbeat(FieldReader fields) {
  HeartbeatMessage heartbeat{fields.String("note")};
  if (!fields.status().ok()) return fields.status();
  return heartbeat;
}

absl::StatusOr<EngineMessage> ParseSequence(FieldReader fields) {
  SequenceMessage sequence;
  sequence.sequence = fields.Uint32("sequence");
  sequence.loss_sum = fields.Number("loss_sum");
  sequence.loss_tokens =
      fields.Unsigned("loss_tokens", std::numeric_limits<uint32_t>::max());
  if (!fields.status().ok()) return fields.status();
  return sequence;
}

absl::StatusOr<EngineMessage> ParseDone(FieldReader fields) {
  constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();
  DoneMessage done;
  done.peak_memory = fields.OptionalUnsigned("peak_memory", kMost);
  done.peak_device_memory =
      fields.OptionalUnsigned("peak_device_memory", kMost);
  if (!fields.status().ok()) return fields.status();
  return done;
}

absl::StatusOr<EngineMessage> ParseError(FieldReader fields) {
  ErrorMessage error{fields.String("reason"), fields.String("message")};
  if (!fields.status().ok()) return fields.status();
  return error;
}

absl::StatusOr<EngineMessage> ParseObject(const Json& object) {
  FieldReader fields(object);
  const std::string type = fields.String("type");
  if (!fields.status().ok()) return fields.status();
  if (type == "hello") return ParseHello(fields);
  if (type == "layer") return ParseLayer(fields);
  if (type == "heartbeat") return ParseHeartbeat(fields);
  if (type == "sequence") return ParseSequence(fields);
  if (type == "done") return ParseDone(FieldReader(object));
  if (type == "error") return ParseError(fields);
  return absl::InvalidArgumentError(
      "its type is none of hello, layer, heartbeat, sequence, done, error");
}

}  // namespace

absl::StatusOr<EngineMessage> ParseEngineMessage(absl::string_view line) {
  // Without exceptions; a depth bomb is bounded by the length of a line.
  const Json json = Json::parse(line.begin(), line.end(), nullptr,
                                /*allow_exceptions=*/false);
  absl::StatusOr<EngineMessage> message =
      json.is_object() ? ParseObject(json)
                       : absl::InvalidArgumentError("it is not a JSON object");
  if (message.ok()) return message;
  return absl::InvalidArgumentError(absl::StrCat(
      "bad message ", Quote(line), ": ", message.status().message()));
}

std::string StartMessage(const std::string& segment, uint32_t slots,
                         uint64_t slot_bytes) {
  const Json json = {{"type", "start"},
                     {"segment", segment},
                     {"slots", slots},
                     {"slot_bytes", slot_bytes}};
  return json.dump() + "\n";
}

std::string ReleaseMessage(uint32_t slot) {
  return Json({{"type", "release"}, {"slot", slot}}).dump() + "\n";
}

}  // namespace ratequant::calibration
