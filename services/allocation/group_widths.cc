#include "services/allocation/group_widths.h"

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/allocation/calibration_check.h"
#include "services/common/status.h"

namespace ratequant::allocation {
namespace {

using v1::GroupRule;

absl::Status CheckWidth(const std::string& field, uint32_t width,
                        uint32_t least, const char* also = "") {
  if (width >= least && width <= kWidths) return absl::OkStatus();
  return FieldError(
      "UNSUPPORTED_WIDTH", field,
      absl::StrCat("is ", width, "; use 1 to ", kWidths,
                   least == 0 ? ", or 0 for no bound" : "", also));
}

absl::Status CheckRule(const v1::ModelGeometry& geometry,
                       const std::string& field, const GroupRule& rule) {
  for (const auto& [part, width] :
       {std::pair(".min_width", rule.min_width()),
        std::pair(".max_width", rule.max_width())}) {
    if (width == kFp16Width) continue;
    absl::Status status =
        CheckWidth(absl::StrCat(field, part), width, 0, ", or 16 for fp16");
    if (!status.ok()) return status;
  }
  const auto invalid = [&field](const char* part, const std::string& text) {
    return FieldError("INVALID_POLICY", absl::StrCat(field, part), text);
  };
  const std::string shape =
      absl::StrCat("the model has ", geometry.layers(), " layers and ",
                   geometry.kv_heads(), " KV heads, counted from 0");
  if (rule.has_layer() && rule.layer() >= geometry.layers()) {
    return invalid(".layer", absl::StrCat("is ", rule.layer(), "; ", shape));
  }
  if (rule.has_kv_head() && rule.kv_head() >= geometry.kv_heads()) {
    return invalid(".kv_head",
                   absl::StrCat("is ", rule.kv_head(), "; ", shape));
  }
  if (!GroupRule::Tensor_IsValid(rule.tensor())) {
    return invalid(".tensor",
                   absl::StrCat("is ", static_cast<int>(rule.tensor()),
                                "; use KEY or VALUE, or leave it unset"));
  }
  if (rule.min_width() == 0 && rule.max_width() == 0) {
    return invalid("", "bounds nothing; set min_width, max_width or both");
  }
  if (rule.max_width() == kFp16Width && rule.min_width() != kFp16Width) {
    return invalid(".max_width",
                   "is 16, which goes with a min_width of 16 only: a group is "
                   "kept in fp16 or quantized");
  }
  if (rule.max_width() != 0 && rule.min_width() > rule.max_width()) {
    return invalid(".min_width",
                   absl::StrCat("is ", rule.min_width(),
                                ", above its max_width ", rule.max_width()));
  }
  return absl::OkStatus();
}

auto RuleKey(const GroupRule& rule) {
  return std::tuple(rule.has_layer(), rule.layer(), rule.has_kv_head(),
                    rule.kv_head(), static_cast<int>(rule.tensor()),
                    rule.min_width(), rule.max_width());
}

// A bound and the field it comes from.
struct Bound {
  int width = 0;
  const char* from = "";
};

struct Bounds {
  Bound lower, upper;
};

void Raise(int width, const char* from, Bounds* bounds) {
  if (width > bounds->lower.width) bounds->lower = {width, from};
}

void Lower(int width, const char* from, Bounds* bounds) {
  if (width < bounds->upper.width) bounds->upper = {width, from};
}

// What every quantizer's bounds lie within.
Bounds Outer(const v1::Policy& policy, const std::vector<WidthBounds>& bounds) {
  constexpr char kDefault[] = "the quantizer's or objective's default";
  Bounds outer = {
      {bounds[0].lower, policy.min_width() ? "policy.min_width" : kDefault},
      {bounds[0].upper, policy.max_width() ? "policy.max_width" : kDefault}};
  for (const WidthBounds& b : bounds) {
    outer.lower.width = std::min(outer.lower.width, b.lower);
    outer.upper.width = std::max(outer.upper.width, b.upper);
  }
  return outer;
}

void ApplyRule(const GroupRule& rule, const v1::ModelGeometry& geometry,
               std::vector<Bounds>* groups) {
  const auto range = [](bool one, uint32_t index, uint32_t all) {
    return one ? std::pair(index, index + 1) : std::pair(0u, all);
  };
  const auto [layer, layers] =
      range(rule.has_layer(), rule.layer(), geometry.layers());
  const auto [head, heads] =
      range(rule.has_kv_head(), rule.kv_head(), geometry.kv_heads());
  for (uint32_t l = layer; l < layers; ++l) {
    for (uint32_t h = head; h < heads; ++h) {
      for (size_t tensor : {0, 1}) {
        const auto other = tensor == 0 ? GroupRule::VALUE : GroupRule::KEY;
        if (rule.tensor() == other) continue;
        Bounds* group =
            &(*groups)[(size_t{l} * geometry.kv_heads() + h) * 2 + tensor];
        if (rule.min_width() == kFp16Width) {
          *group = {{kFp16Width, "policy.rules"}, {kFp16Width, ""}};
        } else if (rule.min_width() != 0) {
          Raise(static_cast<int>(rule.min_width()), "policy.rules", group);
        }
        if (rule.max_width() != 0 && rule.max_width() != kFp16Width) {
          Lower(static_cast<int>(rule.max_width()), "policy.rules", group);
        }
      }
    }
  }
}

// A layer's heads are bound by what binds any of them.
void BindTogether(size_t heads, std::vector<Bounds>* groups) {
  for (size_t first = 0; first < groups->size(); first += 2 * heads) {
    for (size_t tensor : {0, 1}) {
      Bounds all = (*groups)[first + tensor];
      for (size_t h = 1; h < heads; ++h) {
        const Bounds& one = (*groups)[first + 2 * h + tensor];
        Raise(one.lower.width, one.lower.from, &all);
        Lower(one.upper.width, one.upper.from, &all);
      }
      for (size_t h = 0; h < heads; ++h) {
        (*groups)[first + 2 * h + tensor] = all;
      }
    }
  }
}

absl::Status NothingLeft(const v1::Policy& policy,
                         const v1::ModelGeometry& geometry, size_t group,
                         const Bounds& bounds) {
  const size_t head = group / 2;
  std::string which = absl::StrCat("layer ", head / geometry.kv_heads());
  if (policy.strategy() == v1::Policy::LAYER_WISE) {
    absl::StrAppend(&which, ", all KV heads together");
  } else {
    absl::StrAppend(&which, ", KV head ", head % geometry.kv_heads());
  }
  absl::StrAppend(&which, ", ", group % 2 == 0 ? "K" : "V");
  std::string text =
      absl::StrCat("leaves ", which, " no width: at least ", bounds.lower.width,
                   " by ", bounds.lower.from, ", at most ", bounds.upper.width,
                   " by ", bounds.upper.from);
  if (!policy.allowed_widths().empty()) {
    absl::StrAppend(&text, ", and only ",
                    absl::StrJoin(policy.allowed_widths(), ", "),
                    " by policy.allowed_widths");
  }
  return FieldError("INVALID_POLICY", "policy", text);
}

}  // namespace

bool NarrowsGroups(const v1::Policy& policy) {
  return !policy.allowed_widths().empty() || policy.key_min_width() != 0 ||
         policy.value_min_width() != 0 || !policy.rules().empty();
}

absl::Status CanonicalizeGroupBounds(const v1::ModelGeometry& geometry,
                                     v1::Policy* policy) {
  absl::Status status =
      CheckWidth("policy.key_min_width", policy->key_min_width(), 0);
  if (!status.ok()) return status;
  status = CheckWidth("policy.value_min_width", policy->value_min_width(), 0);
  if (!status.ok()) return status;
  uint32_t seen = 0;
  for (int i = 0; i < policy->allowed_widths_size(); ++i) {
    const std::string field = absl::StrCat("policy.allowed_widths[", i, "]");
    const uint32_t width = policy->allowed_widths(i);
    status = CheckWidth(field, width, 1);
    if (!status.ok()) return status;
    if ((seen >> width & 1) != 0) {
      return FieldError("INVALID_POLICY", field,
                        absl::StrCat("names ", width, " a second time"));
    }
    seen |= 1u << width;
  }
  if (policy->rules_size() > kMaxRules) {
    return FieldError(
        "INVALID_POLICY", "policy.rules",
        absl::StrCat("has ", policy->rules_size(), " rules; at most ",
                     kMaxRules, " are supported"));
  }
  for (int i = 0; i < policy->rules_size(); ++i) {
    status = CheckRule(geometry, absl::StrCat("policy.rules[", i, "]"),
                       policy->rules(i));
    if (!status.ok()) return status;
  }
  std::sort(policy->mutable_allowed_widths()->begin(),
            policy->mutable_allowed_widths()->end());
  auto* rules = policy->mutable_rules();
  std::sort(rules->begin(), rules->end(),
            [](const GroupRule& a, const GroupRule& b) {
              return RuleKey(a) < RuleKey(b);
            });
  const auto twice = std::adjacent_find(
      rules->begin(), rules->end(), [](const GroupRule& a, const GroupRule& b) {
        return RuleKey(a) == RuleKey(b);
      });
  if (twice != rules->end()) {
    return FieldError("INVALID_POLICY", "policy.rules",
                      absl::StrCat("has the rule {", twice->ShortDebugString(),
                                   "} more than once"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint16_t>> GroupWidths(
    const v1::Policy& policy, const v1::ModelGeometry& geometry,
    const std::vector<WidthBounds>& bounds) {
  std::vector<uint16_t> widths;
  if (!NarrowsGroups(policy)) return widths;
  std::vector<Bounds> groups(static_cast<size_t>(GroupCount(geometry)),
                             Outer(policy, bounds));
  for (size_t g = 0; g < groups.size(); ++g) {
    if (g % 2 == 0) {
      Raise(static_cast<int>(policy.key_min_width()), "policy.key_min_width",
            &groups[g]);
    } else {
      Raise(static_cast<int>(policy.value_min_width()),
            "policy.value_min_width", &groups[g]);
    }
  }
  // fp16 first: it lifts the bounds above, and the other rules may contradict
  // it.
  for (const bool fp16 : {true, false}) {
    for (const GroupRule& rule : policy.rules()) {
      if ((rule.min_width() == kFp16Width) == fp16) {
        ApplyRule(rule, geometry, &groups);
      }
    }
  }
  if (policy.strategy() == v1::Policy::LAYER_WISE) {
    BindTogether(geometry.kv_heads(), &groups);
  }
  unsigned allowed = policy.allowed_widths().empty() ? 0xff : 0;
  for (uint32_t width : policy.allowed_widths()) allowed |= 1u << (width - 1);
  widths.reserve(groups.size());
  for (size_t g = 0; g < groups.size(); ++g) {
    const bool fp16 = groups[g].lower.width == kFp16Width;
    const unsigned some = fp16 ? 1u << (kFp16Width - 1) : allowed;
    const unsigned from = 0xffffu << (groups[g].lower.width - 1);
    const unsigned to = (1u << groups[g].upper.width) - 1;
    widths.push_back(static_cast<uint16_t>(some & from & to));
    if (widths.back() == 0) return NothingLeft(policy, geometry, g, groups[g]);
  }
  return widths;
}

}  // namespace ratequant::allocation
