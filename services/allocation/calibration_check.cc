#include "services/allocation/calibration_check.h"

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/quantizers.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"

namespace ratequant::allocation {
namespace {

using google::protobuf::RepeatedField;

// Far above any model, low enough that no product below overflows.
constexpr uint32_t kMaxLayers = 4096;
constexpr uint32_t kMaxHeads = 4096;
constexpr int64_t kMaxGroups = 1 << 17;
constexpr uint32_t kMaxHeadDim = 512;
constexpr uint32_t kMaxTokens = 1 << 24;
constexpr int kMaxTables = 32;
constexpr int kMaxStrings = 64;
constexpr size_t kMaxStringBytes = 1024;
constexpr uint32_t kMaxPageBytes = 1 << 20;

bool IsPowerOfTwo(uint32_t n) { return n != 0 && (n & (n - 1)) == 0; }

constexpr double kMaxMean = 65504;  // the largest number of fp16

class Checker {
 public:
  explicit Checker(const v1::Calibration& calibration)
      : calibration_(calibration) {}

  absl::Status Run() {
    CheckGeometry();
    CheckCapture();
    // Sizes depend on the shape: with a wrong one they would all be reported.
    if (violations_.empty()) {
      CheckGroups();
      CheckTables();
      CheckMeans();
    }
    CheckStrings("warnings", calibration_.warnings());
    if (violations_.empty()) return absl::OkStatus();
    return InvalidFields("INVALID_CALIBRATION", violations_);
  }

 private:
  template <typename... Args>
  void Add(const std::string& field, const Args&... description) {
    violations_.push_back({field, absl::StrCat(description...)});
  }

  // `value` must be in [low, high].
  void Range(const std::string& field, int64_t value, int64_t low,
             int64_t high) {
    if (value < low || value > high) {
      Add(field, "is ", value, "; must be from ", low, " to ", high);
    }
  }

  void NonNegative(const std::string& field, double value) {
    if (!std::isfinite(value) || value < 0) {
      Add(field, "is ", value, "; must be finite and not negative");
    }
  }

  // One violation an array: the first bad entry.
  void Array(const std::string& field, const RepeatedField<double>& values,
             int64_t size) {
    if (values.size() != size) {
      Add(field, "has ", values.size(), " values; the shape needs ", size);
      return;
    }
    for (int i = 0; i < values.size(); ++i) {
      if (!std::isfinite(values[i]) || values[i] < 0) {
        NonNegative(absl::StrCat(field, "[", i, "]"), values[i]);
        return;
      }
    }
  }

  void CheckGeometry() {
    const v1::ModelGeometry& g = calibration_.geometry();
    Range("geometry.layers", g.layers(), 1, kMaxLayers);
    Range("geometry.kv_heads", g.kv_heads(), 1, kMaxHeads);
    Range("geometry.query_heads", g.query_heads(), 1, kMaxHeads);
    Range("geometry.head_dim", g.head_dim(), 8, kMaxHeadDim);
    if (!violations_.empty()) return;
    if (g.query_heads() % g.kv_heads() != 0) {
      Add("geometry.query_heads", "is ", g.query_heads(),
          ", not a multiple of kv_heads ", g.kv_heads());
    }
    if (g.head_dim() % 8 != 0) {
      Add("geometry.head_dim", "is ", g.head_dim(), ", not a multiple of 8");
    }
    if (GroupCount(g) > kMaxGroups) {
      Add("geometry", "has ", GroupCount(g), " groups; at most ", kMaxGroups,
          " are supported");
    }
  }

  void CheckCapture() {
    const v1::CaptureInfo& c = calibration_.capture();
    Range("capture.sequences", c.sequences(), 1, kMaxTokens);
    Range("capture.sequence_length", c.sequence_length(), 1, kMaxTokens);
    if (c.sequence_length() > 0) {
      Range("capture.sink_tokens", c.sink_tokens(), 0, c.sequence_length() - 1);
    }
    if (c.dtype() != "float32" && c.dtype() != "float16" &&
        c.dtype() != "bfloat16") {
      Add("capture.dtype", "is '", c.dtype(),
          "'; must be float32, float16 or bfloat16");
    }
    if (c.device().size() > kMaxStringBytes) {
      Add("capture.device", "is longer than ", kMaxStringBytes, " bytes");
    }
    const std::pair<const char*, const std::string*> digests[] = {
        {"capture.model_digest", &c.model_digest()},
        {"capture.tokenizer_digest", &c.tokenizer_digest()},
        {"capture.token_digest", &c.token_digest()}};
    for (const auto& [field, digest] : digests) {
      if (!digest->empty() && !IsDigest(*digest)) {
        Add(field, "isn't a SHA-256 of 64 lower-case hexadecimal digits");
      }
    }
    NonNegative("capture.mean_nll", c.mean_nll());
    CheckStrings("capture.software", c.software());
    if (c.sweep_device().size() > kMaxStringBytes) {
      Add("capture.sweep_device", "is longer than ", kMaxStringBytes, " bytes");
    }
    CheckStrings("capture.sweep_software", c.sweep_software());
  }

  template <typename Strings>
  void CheckStrings(const std::string& field, const Strings& strings) {
    if (strings.size() > kMaxStrings) {
      Add(field, "has ", strings.size(), " entries; at most ", kMaxStrings);
    }
    for (int i = 0; i < strings.size(); ++i) {
      if (strings[i].size() > kMaxStringBytes) {
        Add(absl::StrCat(field, "[", i, "]"), "is longer than ",
            kMaxStringBytes, " bytes");
      }
    }
  }

  void CheckGroups() {
    const int64_t groups = GroupCount(calibration_.geometry());
    if (calibration_.groups_size() != groups) {
      Add("groups", "has ", calibration_.groups_size(),
          " entries; the shape needs ", groups);
      return;
    }
    for (int g = 0; g < calibration_.groups_size(); ++g) {
      const std::string field = absl::StrCat("groups[", g, "]");
      NonNegative(field + ".g2", calibration_.groups(g).g2());
      NonNegative(field + ".x2", calibration_.groups(g).x2());
    }
  }

  void CheckMeans() {
    const int64_t values = GroupCount(calibration_.geometry()) *
                           calibration_.geometry().head_dim();
    if (calibration_.capture().means_subtracted() !=
        !calibration_.means().empty()) {
      Add("capture.means_subtracted", "goes with means, of which there are ",
          calibration_.means_size());
    }
    if (calibration_.means().empty()) return;
    if (calibration_.means_size() != values) {
      Add("means", "has ", calibration_.means_size(),
          " values; the shape needs ", values, ", or none");
    }
    for (int i = 0; i < calibration_.means_size(); ++i) {
      if (std::abs(calibration_.means(i)) <= kMaxMean) continue;
      Add(absl::StrCat("means[", i, "]"), "is ", calibration_.means(i),
          "; must be finite and at most ", kMaxMean, " in magnitude");
      return;
    }
  }

  void CheckTables() {
    if (calibration_.tables().empty() ||
        calibration_.tables_size() > kMaxTables) {
      Range("tables", calibration_.tables_size(), 1, kMaxTables);
      return;
    }
    for (int t = 0; t < calibration_.tables_size(); ++t) {
      const std::string field = absl::StrCat("tables[", t, "]");
      CheckQuantizer(field, t);
      CheckTable(field, calibration_.tables(t));
    }
  }

  void CheckQuantizer(const std::string& table, int t) {
    const v1::Quantizer& q = calibration_.tables(t).quantizer();
    const std::string field = table + ".quantizer";
    const auto canonical = CanonicalQuantizer(q, field);
    if (!canonical.ok()) {
      for (FieldViolation& violation : FieldViolations(canonical.status())) {
        violations_.push_back(std::move(violation));
      }
      return;
    }
    if (CompareQuantizers(*canonical, q) != 0) {
      Add(field, "must have every parameter of its kind filled in");
    }
    for (int other = 0; other < t; ++other) {
      if (CompareQuantizers(calibration_.tables(other).quantizer(), q) == 0) {
        Add(field, QuantizerText(q), " already is in tables[", other, "]");
      }
    }
    CheckFit(field, *canonical);
  }

  void CheckFit(const std::string& field, const v1::Quantizer& q) {
    const uint32_t head_dim = calibration_.geometry().head_dim();
    if (IsRotated(q.kind()) && !IsPowerOfTwo(head_dim)) {
      Add(field, QuantizerText(q),
          " needs a head_dim that is a power of two; it is ", head_dim);
    }
    if (q.kind() == v1::Quantizer::KIVI && head_dim % q.group_size() != 0) {
      Add(field, "group_size ", q.group_size(), " doesn't divide head_dim ",
          head_dim);
    }
  }

  void CheckTable(const std::string& field, const v1::DistortionTable& table) {
    if (!CheckWidths(field, table)) return;
    const int64_t groups = GroupCount(calibration_.geometry());
    Array(field + ".mse", table.mse(), groups * kWidths);
    Array(field + ".c1", table.c1(), groups * kWidths);
    Array(field + ".c2", table.c2(), groups * kWidths);
    if (!table.c2_standard_error().empty()) {
      Array(field + ".c2_standard_error", table.c2_standard_error(),
            groups * kWidths);
    }
    Gain(field + ".key_gain", table.key_gain());
    Gain(field + ".value_gain", table.value_gain());
    const bool attention = calibration_.capture().attention_output();
    Array(field + ".d2", table.d2(), attention ? groups * kWidths : 0);
    Fit(field + ".key_fit", table.key_fit());
    Fit(field + ".value_fit", table.value_fit());
    if (table.group_fits_size() != groups) {
      Add(field + ".group_fits", "has ", table.group_fits_size(),
          " entries; the shape needs ", groups);
    } else {
      for (int g = 0; g < table.group_fits_size(); ++g) {
        Fit(absl::StrCat(field, ".group_fits[", g, "]"), table.group_fits(g));
      }
    }
    CheckPages(field, table);
  }

  bool CheckWidths(const std::string& field, const v1::DistortionTable& table) {
    bool all = table.widths_size() == kWidths;
    for (int i = 0; all && i < kWidths; ++i) {
      all = table.widths(i) == static_cast<uint32_t>(i + 1);
    }
    if (!all) Add(field + ".widths", "must be 1, 2, 3, 4, 5, 6, 7, 8");
    return all;
  }

  void Fit(const std::string& field, const v1::CurveFit& fit) {
    NonNegative(field + ".alpha", fit.alpha());
    if (!std::isfinite(fit.beta()) || fit.beta() <= 0) {
      Add(field + ".beta", "is ", fit.beta(), "; must be finite and above 0");
    }
    if (!std::isfinite(fit.r2()) || fit.r2() > 1 + 1e-9) {
      Add(field + ".r2", "is ", fit.r2(), "; must be finite and at most 1");
    }
    NonNegative(field + ".max_residual", fit.max_residual());
  }

  void Gain(const std::string& field, const v1::GainPrediction& gain) {
    NonNegative(field + ".am_gm", gain.am_gm());
    if (gain.budgets_size() > kMaxStrings) {
      Add(field + ".budgets", "has ", gain.budgets_size(), " entries; at most ",
          kMaxStrings);
      return;
    }
    for (int i = 0; i < gain.budgets_size(); ++i) {
      const std::string at = absl::StrCat(field, ".budgets[", i, "]");
      NonNegative(at + ".code_bits", gain.budgets(i).code_bits());
      NonNegative(at + ".gain", gain.budgets(i).gain());
    }
  }

  void CheckPages(const std::string& field, const v1::DistortionTable& table) {
    PageBytes(field + ".key_page_bytes", table.key_page_bytes());
    PageBytes(field + ".value_page_bytes", table.value_page_bytes());
    const uint32_t tokens = table.page_tokens();
    if (!IsPowerOfTwo(tokens) || tokens < 16 || tokens > 128) {
      Add(field + ".page_tokens", "is ", tokens, "; must be 16, 32, 64 or 128");
    } else if (table.quantizer().kind() == v1::Quantizer::KIVI &&
               table.quantizer().group_size() != 0 &&
               tokens % table.quantizer().group_size() != 0) {
      Add(field + ".page_tokens", "is ", tokens,
          ", not a multiple of group_size ", table.quantizer().group_size());
    }
    if (table.format_version() == 0) {
      Add(field + ".format_version", "is 0; must be at least 1");
    }
    const v1::DistortionTable& first = calibration_.tables(0);
    if (tokens != first.page_tokens()) {
      Add(field + ".page_tokens", "is ", tokens, ", but ", first.page_tokens(),
          " in tables[0]: bytes can't be compared");
    }
    if (table.format_version() != first.format_version()) {
      Add(field + ".format_version", "is ", table.format_version(), ", but ",
          first.format_version(), " in tables[0]: bytes can't be compared");
    }
  }

  void PageBytes(const std::string& field,
                 const RepeatedField<uint32_t>& bytes) {
    if (bytes.size() != kWidths) {
      Add(field, "has ", bytes.size(), " values; needs ", kWidths);
      return;
    }
    for (int i = 0; i < kWidths; ++i) {
      const uint32_t least = i == 0 ? 1 : bytes[i - 1];
      if (bytes[i] < least || bytes[i] > kMaxPageBytes) {
        Add(absl::StrCat(field, "[", i, "]"), "is ", bytes[i],
            "; must not fall with the width, and be from 1 to ", kMaxPageBytes);
        return;
      }
    }
  }

  const v1::Calibration& calibration_;
  std::vector<FieldViolation> violations_;
};

}  // namespace

int64_t GroupCount(const v1::ModelGeometry& geometry) {
  return int64_t{geometry.layers()} * geometry.kv_heads() * 2;
}

absl::Status CheckCalibration(const v1::Calibration& calibration) {
  return Checker(calibration).Run();
}

}  // namespace ratequant::allocation
