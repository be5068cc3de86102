#include "services/allocation/evaluation_check.h"

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/util/message_differencer.h"
#include "services/common/resource_names.h"
#include "services/common/status.h"

namespace ratequant::allocation {
namespace {

using google::protobuf::util::MessageDifferencer;

// A difference of losses may differ by this from what the perplexities give:
// both are means over the same tokens, rounded here and there.
constexpr double kLossTolerance = 1e-6;

class Checker {
 public:
  explicit Checker(const v1::Evaluation& evaluation)
      : evaluation_(evaluation) {}

  std::vector<FieldViolation> Check(const v1::BitMap& map,
                                    const v1::BitMap& uniform) {
    if (!IsDigest(evaluation_.text_digest())) {
      Add("text_digest", absl::StrCat("'", evaluation_.text_digest(),
                                      "' isn't 64 lower-case hexadecimal "
                                      "digits"));
    }
    if (evaluation_.tokens() <= 0) {
      Add("tokens", absl::StrCat("is ", evaluation_.tokens(), "; at least 1"));
    }
    CheckUniform(map, uniform);
    Perplexity("fp_perplexity", evaluation_.fp_perplexity());
    Perplexity("uniform_perplexity", evaluation_.uniform_perplexity());
    Perplexity("perplexity", evaluation_.perplexity());
    Error("loss_minus_uniform_stderr", evaluation_.loss_minus_uniform_stderr());
    Error("loss_minus_fp_stderr", evaluation_.loss_minus_fp_stderr());
    if (!violations_.empty()) return std::move(violations_);
    Difference("loss_minus_uniform", evaluation_.loss_minus_uniform(),
               "uniform_perplexity", evaluation_.uniform_perplexity());
    Difference("loss_minus_fp", evaluation_.loss_minus_fp(), "fp_perplexity",
               evaluation_.fp_perplexity());
    return std::move(violations_);
  }

 private:
  void Add(const char* field, std::string what) {
    violations_.push_back(
        {absl::StrCat("evaluation.", field), std::move(what)});
  }

  void CheckUniform(const v1::BitMap& map, const v1::BitMap& uniform) {
    if (uniform.policy().strategy() != v1::Policy::UNIFORM) {
      Add("uniform_bit_map", absl::StrCat(uniform.name(), " isn't uniform"));
    } else if (uniform.calibration() != map.calibration() ||
               !MessageDifferencer::Equals(uniform.budget(), map.budget()) ||
               !MessageDifferencer::Equals(uniform.cache(), map.cache())) {
      Add("uniform_bit_map",
          absl::StrCat(uniform.name(),
                       " isn't of the same calibration, budget and cache as ",
                       map.name()));
    }
  }

  void Perplexity(const char* field, double value) {
    if (std::isfinite(value) && value >= 1) return;
    Add(field, absl::StrCat("is ", value, "; a perplexity is at least 1"));
  }

  void Error(const char* field, double value) {
    if (std::isfinite(value) && value >= 0) return;
    Add(field, absl::StrCat("is ", value, "; at least 0"));
  }

  void Difference(const char* field, double value, const char* other,
                  double perplexity) {
    const double expected = std::log(evaluation_.perplexity() / perplexity);
    if (std::abs(value - expected) <= kLossTolerance) return;
    Add(field, absl::StrCat("is ", value, ", but ln(perplexity / ", other,
                            ") is ", expected));
  }

  const v1::Evaluation& evaluation_;
  std::vector<FieldViolation> violations_;
};

}  // namespace

absl::Status CheckEvaluation(const v1::Evaluation& evaluation,
                             const v1::BitMap& map, const v1::BitMap& uniform) {
  const std::vector<FieldViolation> violations =
      Checker(evaluation).Check(map, uniform);
  if (violations.empty()) return absl::OkStatus();
  return InvalidFields("INVALID_EVALUATION", violations);
}

}  // namespace ratequant::allocation
