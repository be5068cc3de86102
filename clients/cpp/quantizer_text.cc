#include "clients/cpp/quantizer_text.h"

#include "absl/strings/str_cat.h"
#include "ratequant/kv/quantizer.h"

namespace ratequant::client {

absl::StatusOr<v1::Quantizer> QuantizerFromText(absl::string_view text) {
  absl::StatusOr<kv::QuantizerSpec> spec = kv::ParseQuantizer(text);
  if (!spec.ok()) return spec.status();
  v1::Quantizer quantizer;
  quantizer.set_kind(static_cast<v1::Quantizer::Kind>(spec->kind));
  switch (spec->kind) {
    case kv::QuantizerKind::kRtn:
      break;
    case kv::QuantizerKind::kKivi:
      quantizer.set_group_size(spec->group_size);
      break;
    case kv::QuantizerKind::kQuarot:
      quantizer.set_seed(spec->seed);
      break;
    case kv::QuantizerKind::kTurboquant:
    case kv::QuantizerKind::kTcq:
      quantizer.set_seed(spec->seed);
      quantizer.set_key_scale(
          static_cast<v1::Quantizer::Scale>(spec->key_scale));
      quantizer.set_value_scale(
          static_cast<v1::Quantizer::Scale>(spec->value_scale));
      break;
  }
  return quantizer;
}

std::string QuantizerText(const v1::Quantizer& quantizer) {
  const absl::StatusOr<kv::QuantizerSpec> spec = QuantizerSpecOf(quantizer);
  if (spec.ok()) return kv::QuantizerName(*spec);
  return absl::StrCat("quantizer#", static_cast<int>(quantizer.kind()));
}

absl::StatusOr<kv::QuantizerSpec> QuantizerSpecOf(
    const v1::Quantizer& quantizer) {
  kv::QuantizerSpec spec;
  switch (quantizer.kind()) {
    case v1::Quantizer::RTN:
    case v1::Quantizer::KIVI:
    case v1::Quantizer::QUAROT:
    case v1::Quantizer::TURBOQUANT:
    case v1::Quantizer::TCQ:
      spec.kind = static_cast<kv::QuantizerKind>(quantizer.kind());
      break;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("quantizer kind ", static_cast<int>(quantizer.kind()),
                       " is not known to this client"));
  }
  if (quantizer.group_size() != 0) spec.group_size = quantizer.group_size();
  spec.seed = quantizer.seed();
  if (quantizer.key_scale() != v1::Quantizer::SCALE_UNSPECIFIED) {
    spec.key_scale = static_cast<kv::RowScale>(quantizer.key_scale());
  }
  if (quantizer.value_scale() != v1::Quantizer::SCALE_UNSPECIFIED) {
    spec.value_scale = static_cast<kv::RowScale>(quantizer.value_scale());
  }
  return spec;
}

}  // namespace ratequant::client
