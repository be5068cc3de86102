#include "services/allocation/query.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "services/allocation/cache_bytes.h"
#include "services/allocation/calibration_check.h"
#include "services/allocation/group_widths.h"
#include "services/common/canonical.h"
#include "services/common/quantizers.h"
#include "services/common/status.h"

namespace ratequant::allocation {
namespace {

// Changes whenever the same query may get another map than before, so that maps
// stored by an older version aren't served.
constexpr int kSolverVersion = 2;

constexpr uint32_t kDefaultWindow = 32;
constexpr uint32_t kDefaultContextTokens = 4096;
constexpr double kMaxBits = 16;
constexpr uint32_t kMaxFormats = 4;

using Quantizers = google::protobuf::RepeatedPtrField<v1::Quantizer>;

absl::StatusOr<int> FindTable(const v1::Quantizer& quantizer,
                              const v1::Calibration& calibration) {
  for (int t = 0; t < calibration.tables_size(); ++t) {
    if (CompareQuantizers(calibration.tables(t).quantizer(), quantizer) == 0) {
      return t;
    }
  }
  const std::string calibrated = CalibratedQuantizers(calibration);
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "QUANTIZER_NOT_CALIBRATED",
      absl::StrCat(calibration.name(), " has no measurements of ",
                   QuantizerText(quantizer), "; it has ", calibrated),
      {{"quantizer", QuantizerText(quantizer)}, {"calibrated", calibrated}});
}

absl::StatusOr<std::vector<int>> SelectTables(
    const Quantizers& quantizers, const v1::Calibration& calibration) {
  std::vector<int> tables(calibration.tables_size());
  std::iota(tables.begin(), tables.end(), 0);
  if (!quantizers.empty()) {
    tables.clear();
    for (int i = 0; i < quantizers.size(); ++i) {
      const auto quantizer = CanonicalQuantizer(
          quantizers[i], absl::StrCat("quantizers[", i, "]"));
      if (!quantizer.ok()) return quantizer.status();
      const auto table = FindTable(*quantizer, calibration);
      if (!table.ok()) return table.status();
      tables.push_back(*table);
    }
  }
  std::sort(tables.begin(), tables.end(), [&calibration](int a, int b) {
    return CompareQuantizers(calibration.tables(a).quantizer(),
                             calibration.tables(b).quantizer()) < 0;
  });
  tables.erase(std::unique(tables.begin(), tables.end()), tables.end());
  return tables;
}

absl::Status AboveMaximum(const char* field, double value) {
  return MakeError(absl::StatusCode::kOutOfRange, "BUDGET_ABOVE_MAXIMUM",
                   absl::StrCat("budget.", field, " is ", value,
                                "; fp16, the most there is, has ", kMaxBits),
                   {{"budget", field},
                    {"requested", absl::StrCat(value)},
                    {"maximum", absl::StrCat(kMaxBits)}});
}

absl::Status CheckBudget(const v1::Budget& budget) {
  const auto invalid = [](const char* field, double value, const char* bound) {
    return FieldError(
        "BUDGET_INVALID", absl::StrCat("budget.", field),
        absl::StrCat("is ", value, "; must be finite and ", bound));
  };
  const auto check = [&](const char* field, double value, bool bits) {
    if (!std::isfinite(value) || value <= 0) {
      return invalid(field, value, "above 0");
    }
    return bits && value > kMaxBits ? AboveMaximum(field, value)
                                    : absl::OkStatus();
  };
  switch (budget.limit_case()) {
    case v1::Budget::kCodeBits:
      return check("code_bits", budget.code_bits(), true);
    case v1::Budget::kEffectiveBits:
      return check("effective_bits", budget.effective_bits(), true);
    case v1::Budget::kBytesPerToken:
      return check("bytes_per_token", budget.bytes_per_token(), false);
    case v1::Budget::kMaxLossIncrease: {
      const double value = budget.max_loss_increase();
      if (std::isfinite(value) && value >= 0) return absl::OkStatus();
      return invalid("max_loss_increase", value, "not negative");
    }
    case v1::Budget::LIMIT_NOT_SET:
      break;
  }
  return FieldError("BUDGET_MISSING", "budget",
                    "is not set; set code_bits, effective_bits, "
                    "bytes_per_token or max_loss_increase");
}

absl::Status CheckWidths(const v1::Policy& policy) {
  const auto check = [](const char* field, uint32_t width) {
    if (width <= kWidths) return absl::OkStatus();
    return FieldError("UNSUPPORTED_WIDTH", field,
                      absl::StrCat("is ", width, "; use 1 to ", kWidths,
                                   ", or 0 for the default"));
  };
  absl::Status status = check("policy.min_width", policy.min_width());
  if (status.ok()) status = check("policy.max_width", policy.max_width());
  if (!status.ok()) return status;
  if (policy.max_width() != 0 && policy.min_width() > policy.max_width()) {
    return FieldError("INVALID_POLICY", "policy.min_width",
                      absl::StrCat("is ", policy.min_width(),
                                   ", above max_width ", policy.max_width()));
  }
  return absl::OkStatus();
}

absl::Status CheckFormats(const v1::Policy& policy) {
  constexpr char kField[] = "policy.max_formats_per_layer";
  const uint32_t most = policy.max_formats_per_layer();
  if (most == 0) return absl::OkStatus();
  if (most > kMaxFormats) {
    return FieldError("INVALID_POLICY", kField,
                      absl::StrCat("is ", most, "; use 1 to ", kMaxFormats,
                                   ", or 0 for any number"));
  }
  if (policy.separate_key_value()) {
    return FieldError("INVALID_POLICY", kField,
                      "counts K and V together, so it doesn't go with "
                      "separate_key_value");
  }
  if (policy.strategy() == v1::Policy::UNIFORM ||
      policy.strategy() == v1::Policy::K_CEIL_V_FLOOR) {
    return FieldError("INVALID_POLICY", kField,
                      "goes with ALLOCATED and LAYER_WISE only: the other "
                      "strategies choose nothing");
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::Policy> MakePolicy(const v1::Policy& requested,
                                      const v1::ModelGeometry& geometry) {
  v1::Policy policy = requested;
  if (!v1::Policy::Objective_IsValid(policy.objective())) {
    return FieldError("INVALID_POLICY", "policy.objective",
                      absl::StrCat("is ", static_cast<int>(policy.objective()),
                                   "; use PAPER, MEASURED, LOSS_PROJECTED or "
                                   "ATTENTION_OUTPUT"));
  }
  if (!v1::Policy::Strategy_IsValid(policy.strategy())) {
    return FieldError("INVALID_POLICY", "policy.strategy",
                      absl::StrCat("is ", static_cast<int>(policy.strategy()),
                                   "; use ALLOCATED, UNIFORM, K_CEIL_V_FLOOR "
                                   "or LAYER_WISE"));
  }
  if (policy.objective() == v1::Policy::OBJECTIVE_UNSPECIFIED) {
    policy.set_objective(v1::Policy::LOSS_PROJECTED);
  }
  if (policy.strategy() == v1::Policy::STRATEGY_UNSPECIFIED) {
    policy.set_strategy(v1::Policy::ALLOCATED);
  }
  if (policy.strategy() == v1::Policy::K_CEIL_V_FLOOR &&
      policy.separate_key_value()) {
    return FieldError("INVALID_POLICY", "policy.separate_key_value",
                      "can't be kept by K_CEIL_V_FLOOR, which gives K more "
                      "than V");
  }
  absl::Status formats = CheckFormats(policy);
  if (!formats.ok()) return formats;
  absl::Status widths = CheckWidths(policy);
  if (widths.ok()) widths = CanonicalizeGroupBounds(geometry, &policy);
  if (!widths.ok()) return widths;
  return policy;
}

std::string NameOneQuantizer(const v1::Calibration& calibration) {
  return absl::StrCat("name exactly one in `quantizers`; calibrated are ",
                      CalibratedQuantizers(calibration));
}

absl::Status OverheadLeftOut(const char* field, const char* instead,
                             const v1::Calibration& calibration) {
  return FieldError(
      "BUDGET_NEEDS_ONE_QUANTIZER", field,
      absl::StrCat("leaves overhead out, so it can't compare quantizers; use ",
                   instead, ", or ", NameOneQuantizer(calibration)),
      {{"calibrated", CalibratedQuantizers(calibration)}});
}

// What only works with one quantizer.
absl::Status CheckSingleQuantizer(const Query& query,
                                  const v1::Calibration& calibration) {
  if (query.tables.size() == 1) return absl::OkStatus();
  const std::string calibrated = CalibratedQuantizers(calibration);
  const ErrorMetadata metadata = {{"calibrated", calibrated}};
  const std::string advice = NameOneQuantizer(calibration);
  if (query.policy.objective() == v1::Policy::PAPER) {
    return FieldError(
        "OBJECTIVE_NEEDS_ONE_QUANTIZER", "policy.objective",
        absl::StrCat("PAPER works on one quantizer's curves; ", advice),
        metadata);
  }
  if (query.budget.has_code_bits()) {
    return OverheadLeftOut("budget.code_bits", "effective_bits", calibration);
  }
  if (query.policy.include_continuous()) {
    return FieldError("INVALID_POLICY", "policy.include_continuous",
                      absl::StrCat("works on one quantizer's curves; ", advice),
                      metadata);
  }
  return absl::OkStatus();
}

// The error when a cache differs from the calibration it is asked of in one of
// its counts of tokens.
absl::Status CalibrationMismatch(const char* field, uint32_t requested,
                                 uint32_t calibrated,
                                 const v1::Calibration& calibration) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "CALIBRATION_MISMATCH",
      absl::StrCat(field, " is ", requested, ", but ", calibration.name(),
                   " was measured with ", calibrated, "; ask for ", calibrated,
                   " or calibrate with ", requested),
      {{"field", field},
       {"requested", absl::StrCat(requested)},
       {"calibrated", absl::StrCat(calibrated)}});
}

absl::StatusOr<v1::CacheConfig> MakeCache(const v1::CacheConfig& requested,
                                          const v1::Calibration& calibration) {
  v1::CacheConfig cache = requested;
  const uint32_t sinks = calibration.capture().sink_tokens();
  if (cache.has_sink_tokens() && cache.sink_tokens() != sinks) {
    return CalibrationMismatch("cache.sink_tokens", cache.sink_tokens(), sinks,
                               calibration);
  }
  const uint32_t page = calibration.tables(0).page_tokens();
  if (cache.page_tokens() != 0 && cache.page_tokens() != page) {
    return CalibrationMismatch("cache.page_tokens", cache.page_tokens(), page,
                               calibration);
  }
  cache.set_page_tokens(page);
  cache.set_sink_tokens(sinks);
  if (!cache.has_window()) cache.set_window(kDefaultWindow);
  if (cache.context_tokens() == 0) {
    cache.set_context_tokens(kDefaultContextTokens);
  }
  const std::pair<const char*, uint32_t> limits[] = {
      {"cache.window", cache.window()},
      {"cache.context_tokens", cache.context_tokens()}};
  for (const auto& [field, tokens] : limits) {
    if (tokens > kMaxContextTokens) {
      return FieldError("INVALID_POLICY", field,
                        absl::StrCat("is ", tokens, "; at most ",
                                     kMaxContextTokens, " is supported"));
    }
  }
  return cache;
}

// What only a request for a curve has.
absl::Status CheckCurve(const v1::GetRateDistortionCurveRequest& request,
                        const Query& query,
                        const v1::Calibration& calibration) {
  using Request = v1::GetRateDistortionCurveRequest;
  if (!Request::Cost_IsValid(request.cost())) {
    return FieldError("INVALID_COST", "cost",
                      absl::StrCat("is ", static_cast<int>(request.cost()),
                                   "; use BYTES or CODE_BITS"));
  }
  if (request.cost() == Request::CODE_BITS && query.tables.size() != 1) {
    return OverheadLeftOut("cost", "BYTES", calibration);
  }
  if (request.has_capacity() && request.capacity().memory_bytes() <= 0) {
    return FieldError("INVALID_CAPACITY", "capacity.memory_bytes",
                      absl::StrCat("is ", request.capacity().memory_bytes(),
                                   "; must be above 0"));
  }
  return absl::OkStatus();
}

absl::Status CheckObjective(const v1::Policy& policy,
                            const v1::Calibration& calibration) {
  if (policy.objective() != v1::Policy::ATTENTION_OUTPUT ||
      calibration.capture().attention_output()) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "OBJECTIVE_NOT_CALIBRATED",
      absl::StrCat("policy.objective is ATTENTION_OUTPUT, but ",
                   calibration.name(),
                   " has no d2; calibrate with attention_output, or use "
                   "LOSS_PROJECTED, MEASURED or PAPER"),
      {{"calibration", calibration.name()}});
}

template <typename Request>
absl::StatusOr<Query> MakeCommon(const Request& request,
                                 const v1::Calibration& calibration) {
  Query query;
  absl::StatusOr<std::vector<int>> tables =
      SelectTables(request.quantizers(), calibration);
  if (!tables.ok()) return tables.status();
  query.tables = *std::move(tables);
  absl::StatusOr<v1::Policy> policy =
      MakePolicy(request.policy(), calibration.geometry());
  if (!policy.ok()) return policy.status();
  query.policy = *std::move(policy);
  absl::Status measured = CheckObjective(query.policy, calibration);
  if (!measured.ok()) return measured;
  absl::StatusOr<v1::CacheConfig> cache =
      MakeCache(request.cache(), calibration);
  if (!cache.ok()) return cache.status();
  query.cache = *std::move(cache);
  return query;
}

}  // namespace

absl::StatusOr<v1::Policy> CanonicalPolicy(const v1::Policy& policy) {
  v1::ModelGeometry any;
  any.set_layers(std::numeric_limits<uint32_t>::max());
  any.set_kv_heads(std::numeric_limits<uint32_t>::max());
  return MakePolicy(policy, any);
}

absl::StatusOr<Query> MakeQuery(const v1::GetBitMapRequest& request,
                                const v1::Calibration& calibration) {
  absl::Status budget = CheckBudget(request.budget());
  if (!budget.ok()) return budget;
  absl::StatusOr<Query> query = MakeCommon(request, calibration);
  if (!query.ok()) return query;
  if (query->policy.include_continuous() && NarrowsGroups(query->policy)) {
    return FieldError("INVALID_POLICY", "policy.include_continuous",
                      "knows no bounds but min_width and max_width; leave out "
                      "allowed_widths, key_min_width, value_min_width and "
                      "rules");
  }
  query->budget = request.budget();
  if (query->budget.has_max_loss_increase() &&
      query->budget.max_loss_increase() == 0) {
    query->budget.set_max_loss_increase(0);  // -0 is 0
  }
  absl::Status single = CheckSingleQuantizer(*query, calibration);
  if (!single.ok()) return single;
  return query;
}

absl::StatusOr<Query> MakeQuery(
    const v1::GetRateDistortionCurveRequest& request,
    const v1::Calibration& calibration) {
  absl::StatusOr<Query> query = MakeCommon(request, calibration);
  if (!query.ok()) return query;
  if (query->policy.max_formats_per_layer() != 0) {
    return FieldError("INVALID_POLICY", "policy.max_formats_per_layer",
                      "has no curve; ask for the bit maps of single budgets");
  }
  query->policy.set_strategy(v1::Policy::ALLOCATED);
  query->policy.clear_include_continuous();
  absl::Status checked = CheckSingleQuantizer(*query, calibration);
  if (checked.ok()) checked = CheckCurve(request, *query, calibration);
  if (!checked.ok()) return checked;
  return query;
}

absl::StatusOr<std::string> QueryKey(const Query& query,
                                     const v1::Calibration& calibration) {
  v1::GetBitMapRequest explicit_request;
  explicit_request.set_calibration(calibration.name());
  for (int table : query.tables) {
    *explicit_request.add_quantizers() = calibration.tables(table).quantizer();
  }
  *explicit_request.mutable_budget() = query.budget;
  *explicit_request.mutable_policy() = query.policy;
  *explicit_request.mutable_cache() = query.cache;
  absl::StatusOr<std::string> bytes = CanonicalBytes(explicit_request);
  if (!bytes.ok()) return bytes.status();
  return Sha256Hex(absl::StrCat("solver ", kSolverVersion, "\n", *bytes));
}

std::string CalibratedQuantizers(const v1::Calibration& calibration) {
  std::vector<std::string> names;
  for (const v1::DistortionTable& table : calibration.tables()) {
    names.push_back(QuantizerText(table.quantizer()));
  }
  std::string text = names.front();
  for (size_t i = 1; i < names.size(); ++i) {
    absl::StrAppend(&text, i + 1 == names.size() ? " and " : ", ", names[i]);
  }
  return text;
}

}  // namespace ratequant::allocation
