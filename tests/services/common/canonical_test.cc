#include "services/common/canonical.h"

#include "gtest/gtest.h"
#include "ratequant/v1/calibration.pb.h"
#include "services/common/status.h"

namespace ratequant {
namespace {

TEST(CanonicalTest, Sha256MatchesKnownVectors) {
  EXPECT_EQ(Sha256Hex(""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(CanonicalTest, BytesAreTheWireFormatInFieldOrder) {
  v1::ModelGeometry geometry;
  geometry.set_head_dim(64);
  geometry.set_layers(30);
  EXPECT_EQ(*CanonicalBytes(geometry), std::string("\x08\x1e\x20\x40", 4));
}

TEST(CanonicalTest, DigestDoesNotDependOnTheOrderThingsWereReadIn) {
  v1::ModelGeometry forward, backward;
  ASSERT_TRUE(forward.ParseFromString(std::string("\x08\x1e\x20\x40", 4)));
  ASSERT_TRUE(backward.ParseFromString(std::string("\x20\x40\x08\x1e", 4)));
  EXPECT_EQ(*CanonicalDigest(forward), *CanonicalDigest(backward));
}

TEST(CanonicalTest, UnknownFieldsAreRefusedAtAnyDepth) {
  v1::Calibration calibration;
  v1::Quantizer* quantizer = calibration.add_tables()->mutable_quantizer();
  ASSERT_TRUE(CanonicalDigest(calibration).ok());
  quantizer->GetReflection()->MutableUnknownFields(quantizer)->AddVarint(77, 1);
  const absl::Status status = CanonicalDigest(calibration).status();
  EXPECT_EQ(ErrorReason(status), "UNKNOWN_FIELDS");
  EXPECT_NE(status.message().find("ratequant.v1.Quantizer"),
            absl::string_view::npos);
}

}  // namespace
}  // namespace ratequant
