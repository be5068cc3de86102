#include "services/common/status.h"

#include "absl/strings/cord.h"
#include "gmock/gmock.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"

namespace ratequant {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

TEST(StatusTest, DetailsSurviveTheWire) {
  const absl::Status status =
      InvalidFields("INVALID_CALIBRATION",
                    {{"tables[0].mse", "has 3 values, needs 16"},
                     {"geometry.layers", "is 0"}},
                    {{"model", "tiny"}});
  const absl::Status back = FromGrpcStatus(ToGrpcStatus(status));
  EXPECT_EQ(back.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(back.message(), status.message());
  EXPECT_EQ(ErrorReason(back), "INVALID_CALIBRATION");
  EXPECT_THAT(ErrorInfoMetadata(back), ElementsAre(Pair("model", "tiny")));
  const std::vector<FieldViolation> violations = FieldViolations(back);
  ASSERT_EQ(violations.size(), 2u);
  EXPECT_EQ(violations[0].field, "tables[0].mse");
  EXPECT_EQ(violations[1].description, "is 0");
}

TEST(StatusTest, WireFormIsGoogleRpcStatusWithTheSameCodeAndMessage) {
  const grpc::Status wire = ToGrpcStatus(
      MakeError(absl::StatusCode::kNotFound, "MODEL_NOT_FOUND", "no model x"));
  google::rpc::Status status;
  ASSERT_TRUE(status.ParseFromString(wire.error_details()));
  EXPECT_EQ(status.code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.message(), "no model x");
  ASSERT_EQ(status.details_size(), 1);
  EXPECT_EQ(status.details(0).type_url(),
            "type.googleapis.com/google.rpc.ErrorInfo");
}

TEST(StatusTest, OkStaysOkAndPlainErrorsKeepCodeAndMessage) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
  const absl::Status plain = FromGrpcStatus(
      grpc::Status(grpc::StatusCode::UNAVAILABLE, "connection refused"));
  EXPECT_EQ(plain.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(plain.message(), "connection refused");
  EXPECT_EQ(ErrorReason(plain), "");
  EXPECT_TRUE(FieldViolations(plain).empty());
}

TEST(StatusTest, AnnotateKeepsPayloads) {
  const absl::Status status =
      Annotate(FieldError("INVALID_NAME", "name", "is empty"), "item 3");
  EXPECT_EQ(status.message(), "item 3: name: is empty");
  EXPECT_EQ(ErrorReason(status), "INVALID_NAME");
  EXPECT_EQ(FieldViolations(status).size(), 1u);
  EXPECT_TRUE(Annotate(absl::OkStatus(), "x").ok());
}

TEST(StatusTest, LongAndManyViolationsStayWithinTrailers) {
  std::vector<FieldViolation> many(
      500, {std::string(300, 'f'), std::string(5000, 'd')});
  const absl::Status status = InvalidFields(
      "INVALID_CALIBRATION", many, {{"long", std::string(100000, 'm')}});
  const grpc::Status wire = ToGrpcStatus(status);
  EXPECT_LE(wire.error_message().size(), 1024u);
  EXPECT_LE(
      wire.error_details().size() * 4 / 3 + wire.error_message().size() * 3,
      8000u);
  EXPECT_EQ(ErrorReason(FromGrpcStatus(wire)), "INVALID_CALIBRATION");
}

TEST(StatusTest, TextThatIsNotUtf8IsEscapedAndCutsFallBetweenCharacters) {
  const grpc::Status latin1 = ToGrpcStatus(absl::InternalError("caf\xe9 died"));
  EXPECT_EQ(latin1.error_message(), "caf\\xe9 died");
  std::string umlauts;
  for (int i = 0; i < 2000; ++i) umlauts += "\xc3\xbc";
  const std::string cut =
      ToGrpcStatus(absl::InternalError(umlauts)).error_message();
  EXPECT_EQ(cut.substr(cut.size() - 5), "\xc3\xbc...");
  EXPECT_EQ((cut.size() - 3) % 2, 0u);
}

}  // namespace
}  // namespace ratequant
