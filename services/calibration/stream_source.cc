#include "services/calibration/stream_source.h"

#include <cstring>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/calibration/memory_need.h"
#include "services/common/status.h"

namespace ratequant::calibration {
namespace {

using v1::TensorChunk;

absl::Status StreamError(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason, message);
}

absl::Status WrongShape(absl::string_view message) {
  return StreamError("WRONG_SHAPE", message);
}

absl::Status OutOfOrder(absl::string_view message) {
  return StreamError("CHUNK_OUT_OF_ORDER", message);
}

std::string KindName(int index) {
  return TensorChunk::Kind_Name(static_cast<TensorChunk::Kind>(index + 1));
}

std::string Place(const TensorChunk& chunk) {
  const std::string kind =
      TensorChunk::Kind_IsValid(chunk.kind())
          ? TensorChunk::Kind_Name(chunk.kind())
          : absl::StrCat("kind ", static_cast<int>(chunk.kind()));
  return absl::StrCat(kind, " of layer ", chunk.layer(), ", sequence ",
                      chunk.sequence());
}

absl::Status BadHeader(absl::string_view field, absl::string_view what) {
  return FieldError("INVALID_ARGUMENT", absl::StrCat("header.", field), what);
}

}  // namespace

absl::StatusOr<v1::CalibrateHeader> ReadHeader(const ChunkReader& read) {
  auto chunk = read();
  if (!chunk.ok()) return chunk.status();
  if (!chunk->has_value()) {
    return StreamError("HEADER_MISSING", "the stream ended before its header");
  }
  if (!(*chunk)->has_header()) {
    return StreamError("HEADER_MISSING",
                       "the first message of the stream isn't the header");
  }
  return std::move(*(*chunk)->mutable_header());
}

StreamSource::StreamSource(const CalibrationPlan& plan,
                           v1::CalibrateHeader header, ChunkReader read)
    : plan_(plan), header_(std::move(header)), read_(std::move(read)) {}

absl::StatusOr<CaptureShape> StreamSource::Open() {
  auto dtype = ParseDType(header_.dtype());
  if (!dtype.ok()) return BadHeader("dtype", dtype.status().message());
  absl::Status geometry = CheckGeometry(header_.geometry(), plan_);
  if (!geometry.ok()) return geometry;
  if (auto problem = CheckProvenance(header_.capture())) {
    return BadHeader("capture." + problem->field, problem->description);
  }
  shape_ = {header_.geometry(), *dtype};
  absl::Status attention = ReadAttention();
  if (!attention.ok()) return attention;
  layout_ = LayerLayout(plan_, shape_.geometry, *dtype);
  auto fits = LayersInMemory(plan_, shape_.geometry, layout_.bytes());
  if (!fits.ok()) return fits.status();
  layers_ =
      std::make_unique<LayerTracker>(plan_.sequences, shape_.geometry.layers());
  return shape_;
}

absl::Status StreamSource::ReadAttention() {
  const int expected =
      plan_.attention_output ? static_cast<int>(shape_.geometry.layers()) : 0;
  if (header_.attention_size() != expected) {
    return BadHeader("attention",
                     absl::StrCat("has ", header_.attention_size(),
                                  " entries; needs ", expected,
                                  plan_.attention_output
                                      ? ", one per layer"
                                      : " without options.attention_output"));
  }
  for (int layer = 0; layer < expected; ++layer) {
    auto params = ToAttentionParams(header_.attention(layer), shape_.geometry);
    if (!params.ok()) {
      return BadHeader(absl::StrCat("attention[", layer, "]"),
                       params.status().message());
    }
    attention_.push_back(*params);
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::optional<CapturedLayer>> StreamSource::Next() {
  auto chunk = ReadTensor();
  if (!chunk.ok()) return chunk.status();
  if (!chunk->has_value()) {
    if (!layers_->complete()) return Incomplete();
    return absl::optional<CapturedLayer>();
  }
  const uint32_t sequence = (*chunk)->sequence();
  absl::Status read = ReadLayer(*std::move(*chunk));
  if (!read.ok()) return read;
  if (layers_->sequence_full()) {
    absl::Status ended = layers_->EndSequence(sequence);
    if (!ended.ok()) return ended;
  }
  CapturedLayer layer;
  layer.sequence = sequence;
  layer.layer = layer_index_;
  layout_.Place(layer_.get(), layer);
  if (!attention_.empty()) layer.attention = attention_[layer_index_];
  return absl::make_optional(layer);
}

absl::StatusOr<absl::optional<TensorChunk>> StreamSource::ReadTensor() {
  auto chunk = read_();
  if (!chunk.ok()) return chunk.status();
  if (!chunk->has_value()) return absl::optional<TensorChunk>();
  if (!(*chunk)->has_tensor()) {
    return OutOfOrder("a message after the header carries no tensor");
  }
  TensorChunk& tensor = *(*chunk)->mutable_tensor();
  const uint64_t size = tensor.data().size();
  const int kind = static_cast<int>(tensor.kind()) - 1;
  // One that isn't expected at all is found out of order later.
  const uint64_t most =
      layout_.tensor_bytes(kind >= 0 && kind < layout_.tensors() ? kind : 0);
  if (size == 0 || tensor.offset() >= most || size > most - tensor.offset()) {
    return WrongShape(absl::StrCat(Place(tensor), ": ", size,
                                   " bytes at offset ", tensor.offset(),
                                   " of a tensor of ", most, " bytes"));
  }
  return absl::make_optional(std::move(tensor));
}

// Fills layer_ from `first` and the chunks that follow it.
absl::Status StreamSource::ReadLayer(TensorChunk first) {
  absl::Status begun = layers_->Begin(first.sequence(), first.layer());
  if (!begun.ok()) {
    return absl::IsOutOfRange(begun) ? WrongShape(begun.message())
                                     : OutOfOrder(begun.message());
  }
  // The first chunk pays for it: a header alone takes no memory.
  if (layer_ == nullptr)
    layer_.reset(new (std::nothrow) uint8_t[layout_.bytes()]);
  if (layer_ == nullptr) {
    return MakeError(absl::StatusCode::kAborted, "ENGINE_OUT_OF_MEMORY",
                     absl::StrCat("the worker has no ", layout_.bytes(),
                                  " bytes for one layer"));
  }
  layer_index_ = first.layer();
  filled_ = 0;
  absl::Status taken = Take(first);
  while (taken.ok() && !layer_full()) {
    auto chunk = ReadTensor();
    if (!chunk.ok()) return chunk.status();
    if (!chunk->has_value()) return Incomplete();
    taken = Take(**chunk);
  }
  return taken;
}

absl::Status StreamSource::Take(const TensorChunk& chunk) {
  absl::Status place = CheckPlace(chunk);
  if (!place.ok()) return place;
  std::memcpy(layer_.get() + filled_, chunk.data().data(), chunk.data().size());
  filled_ += chunk.data().size();
  return absl::OkStatus();
}

absl::Status StreamSource::CheckPlace(const TensorChunk& chunk) const {
  const auto kind = static_cast<TensorChunk::Kind>(current() + 1);
  const uint64_t offset = position();
  const bool same_layer =
      chunk.sequence() == layers_->sequence() && chunk.layer() == layer_index_;
  const bool same_tensor = same_layer && chunk.kind() == kind;
  if (!same_tensor && offset != 0) {
    return WrongShape(absl::StrCat(Place(chunk), " begins after ", offset,
                                   " of ", layout_.tensor_bytes(current()),
                                   " bytes of ", Position()));
  }
  if (!same_tensor) {
    return OutOfOrder(
        absl::StrCat("expected ", Position(), ", got ", Place(chunk)));
  }
  if (chunk.offset() != offset) {
    return OutOfOrder(absl::StrCat(Place(chunk), ": expected offset ", offset,
                                   ", got ", chunk.offset()));
  }
  return absl::OkStatus();
}

// What the next byte belongs to.
std::string StreamSource::Position() const {
  return absl::StrCat(KindName(current()), " of layer ", layer_index_,
                      ", sequence ", layers_->sequence());
}

absl::Status StreamSource::Incomplete() const {
  const bool inside = layer_ != nullptr && filled_ > 0 && !layer_full();
  return StreamError(
      "STREAM_INCOMPLETE",
      absl::StrCat("the stream ended in sequence ", layers_->sequence(), " of ",
                   plan_.sequences,
                   inside ? absl::StrCat(", ", position(), " of ",
                                         layout_.tensor_bytes(current()),
                                         " bytes into ", Position())
                          : std::string(", between two layers")));
}

v1::CaptureInfo StreamSource::Info() const {
  v1::CaptureInfo info = header_.capture();
  info.set_sequences(plan_.sequences);
  info.set_sequence_length(plan_.sequence_length);
  info.set_sink_tokens(plan_.sink_tokens);
  info.set_dtype(header_.dtype());
  return info;
}

}  // namespace ratequant::calibration
