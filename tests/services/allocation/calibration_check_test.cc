#include "services/allocation/calibration_check.h"

#include <functional>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/status.h"
#include "tests/services/allocation/calibration_generator.h"

namespace ratequant::allocation {
namespace {

using ::ratequant::testing::MakeCalibration;
using ::testing::HasSubstr;

TEST(CalibrationCheckTest, AGeneratedCalibrationIsValid) {
  EXPECT_TRUE(CheckCalibration(MakeCalibration()).ok())
      << CheckCalibration(MakeCalibration());
}

struct Case {
  const char* field;
  const char* description;
  std::function<void(v1::Calibration*)> damage;
};

TEST(CalibrationCheckTest, EveryKindOfDamageIsNamed) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInf = std::numeric_limits<double>::infinity();
  using C = v1::Calibration;
  const Case cases[] = {
      {"geometry.layers", "is 0",
       [](C* c) { c->mutable_geometry()->set_layers(0); }},
      {"geometry.kv_heads", "is 5000",
       [](C* c) { c->mutable_geometry()->set_kv_heads(5000); }},
      {"geometry.query_heads", "not a multiple",
       [](C* c) { c->mutable_geometry()->set_query_heads(7); }},
      {"geometry.head_dim", "not a multiple of 8",
       [](C* c) { c->mutable_geometry()->set_head_dim(60); }},
      {"geometry.head_dim", "is 1024",
       [](C* c) { c->mutable_geometry()->set_head_dim(1024); }},
      {"capture.sequences", "is 0",
       [](C* c) { c->mutable_capture()->set_sequences(0); }},
      {"capture.sink_tokens", "is 512",
       [](C* c) { c->mutable_capture()->set_sink_tokens(512); }},
      {"capture.dtype", "'int8'",
       [](C* c) { c->mutable_capture()->set_dtype("int8"); }},
      {"capture.token_digest", "SHA-256",
       [](C* c) { c->mutable_capture()->set_token_digest("abc"); }},
      {"capture.mean_nll", "nan",
       [](C* c) { c->mutable_capture()->set_mean_nll(kNan); }},
      {"groups", "has 15 entries; the shape needs 16",
       [](C* c) { c->mutable_groups()->RemoveLast(); }},
      {"groups[3].g2", "inf", [](C* c) { c->mutable_groups(3)->set_g2(kInf); }},
      {"groups[4].x2", "is -1", [](C* c) { c->mutable_groups(4)->set_x2(-1); }},
      {"tables", "is 0", [](C* c) { c->clear_tables(); }},
      {"tables[1].widths", "1, 2, 3",
       [](C* c) { c->mutable_tables(1)->mutable_widths()->RemoveLast(); }},
      {"tables[1].widths", "1, 2, 3",
       [](C* c) { c->mutable_tables(1)->set_widths(2, 7); }},
      {"tables[0].mse", "has 127 values; the shape needs 128",
       [](C* c) { c->mutable_tables(0)->mutable_mse()->RemoveLast(); }},
      {"tables[2].c1[17]", "nan",
       [](C* c) { c->mutable_tables(2)->set_c1(17, kNan); }},
      {"tables[2].c2[0]", "is -0.5",
       [](C* c) { c->mutable_tables(2)->set_c2(0, -0.5); }},
      {"tables[2].c2_standard_error", "has 1 values; the shape needs 128",
       [](C* c) { c->mutable_tables(2)->add_c2_standard_error(0.5); }},
      {"tables[0].key_gain.am_gm", "nan",
       [](C* c) { c->mutable_tables(0)->mutable_key_gain()->set_am_gm(kNan); }},
      {"tables[3].value_gain.budgets[0].gain", "is -2",
       [](C* c) {
         c->mutable_tables(3)->mutable_value_gain()->add_budgets()->set_gain(
             -2);
       }},
      {"capture.sweep_device", "longer than 1024 bytes",
       [](C* c) {
         c->mutable_capture()->set_sweep_device(std::string(1025, 'x'));
       }},
      {"tables[1].d2", "has 1 values; the shape needs 0",
       [](C* c) { c->mutable_tables(1)->add_d2(1); }},
      {"tables[0].d2", "has 0 values; the shape needs 128",
       [](C* c) { c->mutable_capture()->set_attention_output(true); }},
      {"tables[1].quantizer", "already is in tables[0]",
       [](C* c) {
         *c->mutable_tables(1)->mutable_quantizer() = c->tables(0).quantizer();
       }},
      {"tables[1].quantizer", "every parameter",
       [](C* c) {
         c->mutable_tables(1)->mutable_quantizer()->clear_group_size();
       }},
      {"tables[0].quantizer.seed", "has no seed",
       [](C* c) { c->mutable_tables(0)->mutable_quantizer()->set_seed(3); }},
      {"tables[2].quantizer", "power of two",
       [](C* c) { c->mutable_geometry()->set_head_dim(96); }},
      {"tables[1].quantizer", "doesn't divide head_dim",
       [](C* c) { c->mutable_geometry()->set_head_dim(16); }},
      {"tables[0].key_fit.beta", "is 0",
       [](C* c) { c->mutable_tables(0)->mutable_key_fit()->set_beta(0); }},
      {"tables[0].group_fits[5].alpha", "nan",
       [](C* c) {
         c->mutable_tables(0)->mutable_group_fits(5)->set_alpha(kNan);
       }},
      {"tables[0].group_fits", "has 15",
       [](C* c) { c->mutable_tables(0)->mutable_group_fits()->RemoveLast(); }},
      {"tables[3].key_page_bytes[4]", "must not fall",
       [](C* c) { c->mutable_tables(3)->set_key_page_bytes(4, 3); }},
      {"tables[3].value_page_bytes", "has 7 values",
       [](C* c) {
         c->mutable_tables(3)->mutable_value_page_bytes()->RemoveLast();
       }},
      {"tables[3].page_tokens", "32 in tables[0]",
       [](C* c) { c->mutable_tables(3)->set_page_tokens(64); }},
      {"tables[1].page_tokens", "not a multiple of group_size",
       [](C* c) { c->mutable_tables(1)->set_page_tokens(16); }},
      {"tables[2].format_version", "1 in tables[0]",
       [](C* c) { c->mutable_tables(2)->set_format_version(2); }},
      {"means", "has 3 values; the shape needs",
       [](C* c) {
         c->mutable_capture()->set_means_subtracted(true);
         for (int i = 0; i < 3; ++i) c->add_means(0);
       }},
      {"means[1]", "is nan",
       [](C* c) {
         c->mutable_capture()->set_means_subtracted(true);
         c->mutable_means()->Resize(16 * c->geometry().head_dim(), 0);
         c->set_means(1, kNan);
       }},
      {"capture.means_subtracted", "of which there are 0",
       [](C* c) { c->mutable_capture()->set_means_subtracted(true); }},
      {"warnings[0]", "longer than",
       [](C* c) { c->add_warnings(std::string(2000, 'w')); }},
  };
  for (const Case& test : cases) {
    v1::Calibration calibration = MakeCalibration();
    test.damage(&calibration);
    const absl::Status status = CheckCalibration(calibration);
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << test.field;
    EXPECT_EQ(ErrorReason(status), "INVALID_CALIBRATION");
    bool found = false;
    std::string all;
    for (const FieldViolation& violation : FieldViolations(status)) {
      all += violation.field + " " + violation.description + "\n";
      found |=
          violation.field == test.field &&
          violation.description.find(test.description) != std::string::npos;
    }
    EXPECT_TRUE(found) << test.field << " " << test.description << " not in\n"
                       << all;
  }
}

}  // namespace
}  // namespace ratequant::allocation
