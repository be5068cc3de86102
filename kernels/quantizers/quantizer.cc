#include "ratequant/kv/quantizer.h"

#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "kernels/quantizers/limits.h"

namespace ratequant::kv {
namespace {

absl::Status UnsupportedGroupSize(absl::string_view size) {
  return absl::InvalidArgumentError(absl::StrCat(
      "group_size ", size, " isn't supported; supported: 8, 16, 32, 64, 128"));
}

absl::string_view ScaleName(RowScale scale) {
  return scale == RowScale::kL2 ? "l2" : "unbiased";
}

absl::StatusOr<QuantizerKind> ParseKind(absl::string_view id) {
  for (const QuantizerSpec& spec : DefaultQuantizers()) {
    if (QuantizerId(spec.kind) == id) return spec.kind;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown quantizer '", id,
                   "'; supported: rtn, kivi, quarot, turboquant, tcq"));
}

absl::StatusOr<RowScale> ParseScale(absl::string_view name,
                                    absl::string_view value) {
  if (value == "l2") return RowScale::kL2;
  if (value == "unbiased") return RowScale::kUnbiased;
  return absl::InvalidArgumentError(absl::StrCat(
      name, " '", value, "' isn't supported; supported: l2, unbiased"));
}

// Names of the parameters a kind has.
std::vector<absl::string_view> ParameterNames(QuantizerKind kind) {
  switch (kind) {
    case QuantizerKind::kRtn:
      return {};
    case QuantizerKind::kKivi:
      return {"group_size"};
    case QuantizerKind::kQuarot:
      return {"seed"};
    case QuantizerKind::kTurboquant:
    case QuantizerKind::kTcq:
      return {"seed", "key_scale", "value_scale"};
  }
  return {};
}

absl::Status UnknownParameter(QuantizerKind kind, absl::string_view name) {
  const std::vector<absl::string_view> known = ParameterNames(kind);
  return absl::InvalidArgumentError(absl::StrCat(
      "quantizer ", QuantizerId(kind), " has no parameter '", name, "'; ",
      known.empty() ? "it has none"
                    : absl::StrCat("it has: ", absl::StrJoin(known, ", "))));
}

absl::Status SetParameter(absl::string_view name, absl::string_view value,
                          QuantizerSpec& spec) {
  if (name == "group_size") {
    if (!absl::SimpleAtoi(value, &spec.group_size) ||
        !IsGroupSize(spec.group_size)) {
      return UnsupportedGroupSize(absl::StrCat("'", value, "'"));
    }
    return absl::OkStatus();
  }
  if (name == "seed") {
    if (absl::SimpleAtoi(value, &spec.seed)) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        "seed '", value,
        "' isn't supported; supported: integers from 0 to 2^64-1"));
  }
  absl::StatusOr<RowScale> scale = ParseScale(name, value);
  if (!scale.ok()) return scale.status();
  (name == "key_scale" ? spec.key_scale : spec.value_scale) = *scale;
  return absl::OkStatus();
}

// A field that doesn't belong to the kind must hold its default: two specs of
// one quantizer would differ otherwise.
absl::Status CheckCanonical(const QuantizerSpec& spec) {
  QuantizerSpec canonical;
  canonical.kind = spec.kind;
  for (const absl::string_view name : ParameterNames(spec.kind)) {
    if (name == "group_size") canonical.group_size = spec.group_size;
    if (name == "seed") canonical.seed = spec.seed;
    if (name == "key_scale") canonical.key_scale = spec.key_scale;
    if (name == "value_scale") canonical.value_scale = spec.value_scale;
  }
  if (canonical == spec) return absl::OkStatus();
  return UnknownParameter(
      spec.kind, canonical.group_size != spec.group_size ? "group_size"
                 : canonical.seed != spec.seed           ? "seed"
                 : canonical.key_scale != spec.key_scale ? "key_scale"
                                                         : "value_scale");
}

absl::Status CheckSpec(const QuantizerSpec& spec) {
  if (!IsKnownKind(spec.kind)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "unknown quantizer kind ", static_cast<int>(spec.kind),
        "; supported: 1 (rtn), 2 (kivi), 3 (quarot), 4 (turboquant), "
        "5 (tcq)"));
  }
  if (!IsKnownScale(spec.key_scale) || !IsKnownScale(spec.value_scale)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "unknown row scale ",
        static_cast<int>(IsKnownScale(spec.key_scale) ? spec.value_scale
                                                      : spec.key_scale),
        "; supported: 1 (l2), 2 (unbiased)"));
  }
  if (spec.kind == QuantizerKind::kKivi && !IsGroupSize(spec.group_size)) {
    return UnsupportedGroupSize(absl::StrCat(spec.group_size));
  }
  return CheckCanonical(spec);
}

}  // namespace

absl::Status ValidateShape(int head_dim, int page_tokens) {
  if (!IsHeadDim(head_dim)) {
    return absl::InvalidArgumentError(
        absl::StrCat("head_dim ", head_dim,
                     " isn't supported; supported: multiples of 8 from ",
                     kMinHeadDim, " to ", kMaxHeadDim));
  }
  if (!IsPageTokens(page_tokens)) {
    return absl::InvalidArgumentError(
        absl::StrCat("page_tokens ", page_tokens,
                     " isn't supported; supported: 16, 32, 64, 128"));
  }
  return absl::OkStatus();
}

absl::string_view QuantizerId(QuantizerKind kind) {
  switch (kind) {
    case QuantizerKind::kRtn:
      return "rtn";
    case QuantizerKind::kKivi:
      return "kivi";
    case QuantizerKind::kQuarot:
      return "quarot";
    case QuantizerKind::kTurboquant:
      return "turboquant";
    case QuantizerKind::kTcq:
      return "tcq";
  }
  return "unknown";
}

absl::StatusOr<QuantizerSpec> ParseQuantizer(absl::string_view text) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  absl::StatusOr<QuantizerKind> kind = ParseKind(parts.first);
  if (!kind.ok()) return kind.status();
  QuantizerSpec spec;
  spec.kind = *kind;
  if (parts.first.size() == text.size()) return spec;

  const std::vector<absl::string_view> known = ParameterNames(*kind);
  std::set<absl::string_view> seen;
  for (const absl::string_view field : absl::StrSplit(parts.second, ',')) {
    const std::pair<absl::string_view, absl::string_view> parameter =
        absl::StrSplit(field, absl::MaxSplits('=', 1));
    if (std::find(known.begin(), known.end(), parameter.first) == known.end()) {
      return UnknownParameter(*kind, parameter.first);
    }
    if (!seen.insert(parameter.first).second) {
      return absl::InvalidArgumentError(absl::StrCat(
          "parameter '", parameter.first, "' is given twice in '", text, "'"));
    }
    const absl::Status status =
        SetParameter(parameter.first, parameter.second, spec);
    if (!status.ok()) return status;
  }
  return spec;
}

std::string QuantizerName(const QuantizerSpec& spec) {
  const QuantizerSpec defaults;
  std::vector<std::string> parameters;
  for (const absl::string_view name : ParameterNames(spec.kind)) {
    if (name == "group_size" && spec.group_size != defaults.group_size) {
      parameters.push_back(absl::StrCat("group_size=", spec.group_size));
    } else if (name == "seed" && spec.seed != defaults.seed) {
      parameters.push_back(absl::StrCat("seed=", spec.seed));
    } else if (name == "key_scale" && spec.key_scale != defaults.key_scale) {
      parameters.push_back(
          absl::StrCat("key_scale=", ScaleName(spec.key_scale)));
    } else if (name == "value_scale" &&
               spec.value_scale != defaults.value_scale) {
      parameters.push_back(
          absl::StrCat("value_scale=", ScaleName(spec.value_scale)));
    }
  }
  return absl::StrCat(QuantizerId(spec.kind), parameters.empty() ? "" : ":",
                      absl::StrJoin(parameters, ","));
}

absl::Status ValidateQuantizer(const QuantizerSpec& spec, int head_dim,
                               int page_tokens) {
  absl::Status status = CheckSpec(spec);
  if (status.ok()) status = ValidateShape(head_dim, page_tokens);
  if (!status.ok()) return status;
  if (IsRotated(spec.kind) && !IsPowerOfTwo(head_dim)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "head_dim ", head_dim, " isn't supported by ", QuantizerId(spec.kind),
        "; supported: powers of two from 8 to 512"));
  }
  if (spec.kind != QuantizerKind::kKivi) return absl::OkStatus();
  if (head_dim % spec.group_size != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "head_dim ", head_dim, " isn't supported by kivi with group_size ",
        spec.group_size, "; supported: multiples of the group size"));
  }
  if (page_tokens % spec.group_size != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "page_tokens ", page_tokens,
        " isn't supported by kivi with group_size ", spec.group_size,
        "; supported: multiples of the group size"));
  }
  return absl::OkStatus();
}

std::vector<QuantizerSpec> DefaultQuantizers() {
  std::vector<QuantizerSpec> all(5);
  all[0].kind = QuantizerKind::kRtn;
  all[1].kind = QuantizerKind::kKivi;
  all[2].kind = QuantizerKind::kQuarot;
  all[3].kind = QuantizerKind::kTurboquant;
  all[4].kind = QuantizerKind::kTcq;
  return all;
}

}  // namespace ratequant::kv
