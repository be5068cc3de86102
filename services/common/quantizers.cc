#include "services/common/quantizers.h"

#include <tuple>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"

namespace ratequant {
namespace {

using v1::Quantizer;

constexpr uint32_t kDefaultGroupSize = 32;

absl::Status Unsupported(absl::string_view field, absl::string_view member,
                         absl::string_view description) {
  return FieldError("UNSUPPORTED_QUANTIZER", absl::StrCat(field, member),
                    description);
}

absl::string_view KindText(Quantizer::Kind kind) {
  switch (kind) {
    case Quantizer::RTN:
      return "rtn";
    case Quantizer::KIVI:
      return "kivi";
    case Quantizer::QUAROT:
      return "quarot";
    case Quantizer::TURBOQUANT:
      return "turboquant";
    case Quantizer::TCQ:
      return "tcq";
    default:
      return "unknown";
  }
}

absl::string_view ScaleText(Quantizer::Scale scale) {
  return scale == Quantizer::L2 ? "l2" : "unbiased";
}

bool IsGroupSize(uint32_t size) {
  return size >= 8 && size <= 128 && (size & (size - 1)) == 0;
}

bool IsScale(Quantizer::Scale scale) {
  return scale == Quantizer::SCALE_UNSPECIFIED || scale == Quantizer::L2 ||
         scale == Quantizer::UNBIASED;
}

// A parameter that would silently be ignored is an error instead.
absl::Status CheckApplies(const Quantizer& q, absl::string_view field) {
  const absl::string_view kind = KindText(q.kind());
  if (q.kind() != Quantizer::KIVI && q.group_size() != 0) {
    return Unsupported(field, ".group_size",
                       absl::StrCat(kind, " has no group_size; leave it 0"));
  }
  if (!IsRotated(q.kind()) && q.seed() != 0) {
    return Unsupported(field, ".seed",
                       absl::StrCat(kind, " has no seed; leave it 0"));
  }
  if (!HasScale(q.kind()) && (q.key_scale() != 0 || q.value_scale() != 0)) {
    return Unsupported(field,
                       q.key_scale() != 0 ? ".key_scale" : ".value_scale",
                       absl::StrCat(kind, " has no scale; leave it unset"));
  }
  return absl::OkStatus();
}

}  // namespace

bool IsRotated(Quantizer::Kind kind) {
  return kind == Quantizer::QUAROT || HasScale(kind);
}

bool HasScale(Quantizer::Kind kind) {
  return kind == Quantizer::TURBOQUANT || kind == Quantizer::TCQ;
}

absl::StatusOr<Quantizer> CanonicalQuantizer(const Quantizer& quantizer,
                                             absl::string_view field) {
  if (quantizer.kind() == Quantizer::KIND_UNSPECIFIED ||
      !Quantizer::Kind_IsValid(quantizer.kind())) {
    return Unsupported(field, ".kind",
                       absl::StrCat("kind ", static_cast<int>(quantizer.kind()),
                                    " isn't supported; use RTN, KIVI, QUAROT, "
                                    "TURBOQUANT or TCQ"));
  }
  absl::Status applies = CheckApplies(quantizer, field);
  if (!applies.ok()) return applies;
  Quantizer canonical = quantizer;
  if (canonical.kind() == Quantizer::KIVI) {
    if (canonical.group_size() == 0) {
      canonical.set_group_size(kDefaultGroupSize);
    }
    if (!IsGroupSize(canonical.group_size())) {
      return Unsupported(field, ".group_size",
                         absl::StrCat(canonical.group_size(),
                                      " isn't supported; use 8, 16, 32, 64 or "
                                      "128"));
    }
  }
  if (HasScale(canonical.kind())) {
    for (const auto& [scale, member] :
         {std::pair(canonical.key_scale(), ".key_scale"),
          std::pair(canonical.value_scale(), ".value_scale")}) {
      if (!IsScale(scale)) {
        return Unsupported(
            field, member,
            absl::StrCat("scale ", static_cast<int>(scale),
                         " isn't supported; use L2 or UNBIASED"));
      }
    }
    if (canonical.key_scale() == 0) canonical.set_key_scale(Quantizer::L2);
    if (canonical.value_scale() == 0) {
      canonical.set_value_scale(Quantizer::UNBIASED);
    }
  }
  return canonical;
}

std::string QuantizerText(const Quantizer& quantizer) {
  std::string text(KindText(quantizer.kind()));
  const char* separator = ":";
  const auto add = [&](absl::string_view key, const auto& value) {
    absl::StrAppend(&text, separator, key, "=", value);
    separator = ",";
  };
  if (quantizer.kind() == Quantizer::KIVI &&
      quantizer.group_size() != kDefaultGroupSize) {
    add("group_size", quantizer.group_size());
  }
  if (quantizer.seed() != 0) add("seed", quantizer.seed());
  if (HasScale(quantizer.kind())) {
    if (quantizer.key_scale() != Quantizer::L2) {
      add("key_scale", ScaleText(quantizer.key_scale()));
    }
    if (quantizer.value_scale() != Quantizer::UNBIASED) {
      add("value_scale", ScaleText(quantizer.value_scale()));
    }
  }
  return text;
}

int CompareQuantizers(const Quantizer& a, const Quantizer& b) {
  const auto key = [](const Quantizer& q) {
    return std::tuple(static_cast<int>(q.kind()), q.group_size(), q.seed(),
                      static_cast<int>(q.key_scale()),
                      static_cast<int>(q.value_scale()));
  };
  return key(a) < key(b) ? -1 : key(b) < key(a) ? 1 : 0;
}

}  // namespace ratequant
