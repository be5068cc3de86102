#include "tests/kernels/sweep/sweep_cases.h"

#include <gtest/gtest.h>

#include <cmath>
#include <utility>

#include "tests/kernels/codec_test_util.h"

namespace ratequant::kv {
namespace {

std::vector<float> RoundAs(std::vector<float> values, DType dtype) {
  for (float& value : values) {
    uint8_t bytes[4];
    StoreElement(value, bytes, dtype, 0);
    value = LoadElement(bytes, dtype, 0);
  }
  return values;
}

void ExpectNear(const std::vector<double>& actual,
                const std::vector<double>& expected, double tolerance,
                const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_GT(expected[i], 0) << what << " " << i;
    ASSERT_NEAR(actual[i] / expected[i], 1.0, tolerance) << what << " " << i;
  }
}

// Compares the tables of each quantizer, and what isn't of one.
template <class Compare>
void ForEachTable(const DistortionTables& actual,
                  const DistortionTables& expected, const Compare& compare) {
  ASSERT_EQ(actual.tables.size(), expected.tables.size());
  for (size_t q = 0; q < expected.tables.size(); ++q) {
    EXPECT_EQ(actual.tables[q].quantizer, expected.tables[q].quantizer);
    EXPECT_EQ(actual.tables[q].widths, expected.tables[q].widths);
    compare(actual.tables[q], expected.tables[q],
            std::to_string(q) + " (" +
                QuantizerName(expected.tables[q].quantizer) + ")");
  }
}

}  // namespace

DistortionSweep::Options MakeSweepOptions(int dim, const SweepTarget& target,
                                          int threads) {
  DistortionSweep::Options options;
  options.layers = 2;
  options.kv_heads = 3;
  options.head_dim = dim;
  options.quantizers = QuantizersFor(dim, 32);
  options.threads = threads;
  options.backend = target.backend;
  options.device = target.device;
  return options;
}

std::vector<Capture> MakeCaptures(const DistortionSweep::Options& options,
                                  int sequences, int tokens, DType dtype) {
  std::vector<Capture> captures;
  for (int sequence = 0; sequence < sequences; ++sequence) {
    for (int layer = options.layers; layer-- > 0;) {
      for (const Tensor tensor : {Tensor::kKey, Tensor::kValue}) {
        const uint64_t seed = captures.size() + 100;
        TestRandom random(seed * 77);
        Capture capture = {layer, tensor, tokens, {}, {}};
        for (int i = 0; i < options.kv_heads * tokens * options.head_dim; ++i) {
          capture.values.push_back(random.Normal() *
                                   (i % 11 == 3 ? 20.0f : 1.0f));
          capture.gradients.push_back(random.Normal() * 1e-3f);
        }
        capture.values = RoundAs(capture.values, dtype);
        capture.gradients = RoundAs(capture.gradients, dtype);
        captures.push_back(std::move(capture));
      }
    }
  }
  return captures;
}

DistortionTables Sweep(const DistortionSweep::Options& options,
                       const std::vector<Capture>& captures, DType dtype) {
  auto sweep = DistortionSweep::Create(options);
  EXPECT_TRUE(sweep.ok()) << sweep.status();
  for (const Capture& c : captures) {
    const int dim = options.head_dim;
    const absl::Status status = (*sweep)->Add(
        c.layer, c.tensor, c.tokens, StoreAs(c.values, dtype, dim, dim).data(),
        StoreAs(c.gradients, dtype, dim, dim).data(), dtype);
    EXPECT_TRUE(status.ok()) << status;
  }
  auto tables = (*sweep)->Finish();
  EXPECT_TRUE(tables.ok()) << tables.status();
  return *std::move(tables);
}

void ExpectTablesNear(const DistortionTables& actual,
                      const DistortionTables& expected, double tolerance) {
  ExpectNear(actual.g2, expected.g2, tolerance, "g2");
  ExpectNear(actual.x2, expected.x2, tolerance, "x2");
  ForEachTable(actual, expected,
               [&](const DistortionTable& a, const DistortionTable& e,
                   const std::string& name) {
                 ExpectNear(a.mse, e.mse, tolerance, "mse of " + name);
                 ExpectNear(a.c1, e.c1, tolerance, "c1 of " + name);
                 ExpectNear(a.c2, e.c2, tolerance, "c2 of " + name);
                 ASSERT_EQ(a.c2_standard_error.size(),
                           e.c2_standard_error.size());
                 // A difference of nearly equal sums may be nearly nothing.
                 for (size_t i = 0; i < e.c2_standard_error.size(); ++i) {
                   ASSERT_NEAR(a.c2_standard_error[i], e.c2_standard_error[i],
                               1e3 * tolerance * e.c2[i])
                       << "standard error of " << name << " " << i;
                 }
               });
}

void ExpectSameTables(const DistortionTables& actual,
                      const DistortionTables& expected) {
  EXPECT_EQ(actual.g2, expected.g2);
  EXPECT_EQ(actual.x2, expected.x2);
  ForEachTable(actual, expected,
               [](const DistortionTable& a, const DistortionTable& e,
                  const std::string& name) {
                 EXPECT_EQ(a.mse, e.mse) << name;
                 EXPECT_EQ(a.c1, e.c1) << name;
                 EXPECT_EQ(a.c2, e.c2) << name;
                 EXPECT_EQ(a.c2_standard_error, e.c2_standard_error) << name;
               });
}

void ExpectWithinBounds(const DistortionTables& actual,
                        const DistortionTables& reference, int head_dim) {
  constexpr double kBound = 1e-5;
  ExpectNear(actual.g2, reference.g2, kBound, "g2");
  ExpectNear(actual.x2, reference.x2, kBound, "x2");
  ForEachTable(
      actual, reference,
      [&](const DistortionTable& a, const DistortionTable& r,
          const std::string& name) {
        ExpectNear(a.mse, r.mse, kBound, "mse of " + name);
        ExpectNear(a.c1, r.c1, kBound, "c1 of " + name);
        ASSERT_EQ(a.c2.size(), r.c2.size());
        ASSERT_EQ(a.c2_standard_error.size(), r.c2_standard_error.size());
        for (size_t i = 0; i < r.c2.size(); ++i) {
          const double bound =
              kBound * (r.c2[i] + std::sqrt(r.c2[i] * head_dim * r.c1[i]));
          ASSERT_NEAR(a.c2[i], r.c2[i], bound) << "c2 of " << name << " " << i;
          if (r.c2_standard_error.empty()) continue;
          // A single sequence's c2 may be far above the mean of all.
          ASSERT_NEAR(a.c2_standard_error[i], r.c2_standard_error[i], 4 * bound)
              << "standard error of " << name << " " << i;
        }
      });
}

}  // namespace ratequant::kv
