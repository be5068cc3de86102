// What people are told when something fails, and the exit codes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "clients/cli/error_report.h"
#include "clients/cli/exit_code.h"
#include "clients/cpp/status.h"
#include "google/rpc/error_details.pb.h"

namespace ratequant::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

absl::Status ServerError(absl::StatusCode code, const std::string& reason,
                         const std::string& message = "message") {
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  absl::Status status(code, message);
  status.SetPayload("type.googleapis.com/google.rpc.ErrorInfo",
                    absl::Cord(info.SerializeAsString()));
  client::SetStatusServer(status, client::Server::kAllocator);
  return status;
}

TEST(ExitCodeTest, OnePerKindOfFailure) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCodeOf(absl::InternalError("")), 1);
  EXPECT_EQ(ExitCodeOf(UsageError("")), 2);
  EXPECT_EQ(ExitCodeOf(absl::NotFoundError("")), 3);
  EXPECT_EQ(ExitCodeOf(absl::UnavailableError("")), 4);
  EXPECT_EQ(ExitCodeOf(absl::DeadlineExceededError("")), 4);
  EXPECT_EQ(ExitCodeOf(absl::CancelledError("")), 130);
}

TEST(ExitCodeTest, AnAnswerIsNotAMissingServer) {
  EXPECT_EQ(
      ExitCodeOf(ServerError(absl::StatusCode::kUnavailable, "STORE_ERROR")),
      1);
  EXPECT_EQ(ExitCodeOf(ServerError(absl::StatusCode::kDeadlineExceeded,
                                   "ENGINE_HUNG")),
            1);
  EXPECT_EQ(ExitCodeOf(ServerError(absl::StatusCode::kCancelled, "")), 1);
}

TEST(ErrorReportTest, MessageReasonFieldsAndNextStepsAreAligned) {
  absl::Status status = ServerError(absl::StatusCode::kInvalidArgument,
                                    "BUDGET_NEEDS_ONE_QUANTIZER");
  google::rpc::BadRequest bad;
  bad.add_field_violations()->set_field("quantizers");
  bad.mutable_field_violations(0)->set_description("2 are given");
  status.SetPayload("type.googleapis.com/google.rpc.BadRequest",
                    absl::Cord(bad.SerializeAsString()));
  EXPECT_EQ(RenderError(status, {}, {}),
            "ratequant: message\n"
            "  reason  BUDGET_NEEDS_ONE_QUANTIZER\n"
            "  field   quantizers: 2 are given\n"
            "  next    name one with --quantizer, or give the budget as "
            "--effective-bits, which counts every overhead\n");
}

TEST(ErrorReportTest, AFieldTheMessageQuotesIsNotSaidTwice) {
  absl::Status status =
      ServerError(absl::StatusCode::kInvalidArgument, "INVALID_POLICY",
                  "policy.min_width: 9 is above 8");
  google::rpc::BadRequest bad;
  bad.add_field_violations()->set_field("policy.min_width");
  bad.mutable_field_violations(0)->set_description("9 is above 8");
  status.SetPayload("type.googleapis.com/google.rpc.BadRequest",
                    absl::Cord(bad.SerializeAsString()));
  EXPECT_EQ(RenderError(status, {}, {}),
            "ratequant: policy.min_width: 9 is above 8\n"
            "  reason  INVALID_POLICY\n");
}

TEST(NextStepsTest, AMissingQuantizerNamesThoseThatAreCalibrated) {
  EXPECT_THAT(NextSteps(ServerError(absl::StatusCode::kFailedPrecondition,
                                    "QUANTIZER_NOT_CALIBRATED"),
                        {.available = {"kivi", "turboquant"}}),
              ElementsAre("calibrated: kivi, turboquant",
                          HasSubstr("leave --quantizer out"),
                          HasSubstr("ratequant calibrate")));
}

TEST(NextStepsTest, AMissingModelNamesTenOthersAtMost) {
  ErrorContext context;
  for (int i = 0; i < 12; ++i) context.available.push_back("m");
  EXPECT_THAT(
      NextSteps(ServerError(absl::StatusCode::kNotFound, "MODEL_NOT_FOUND"),
                context),
      ElementsAre("calibrated models: m, m, m, m, m, m, m, m, m, m and "
                  "2 more",
                  HasSubstr("ratequant calibrate")));
}

TEST(NextStepsTest, AFarServerIsNotToBeStartedHere) {
  absl::Status status = absl::UnavailableError("cannot reach it");
  client::SetStatusServer(status, client::Server::kWorker);
  EXPECT_THAT(NextSteps(status, {.worker_endpoint = "gpu7:50062"}),
              ElementsAre("check that ratequant-worker runs there",
                          HasSubstr("RATEQUANT_WORKER_ENDPOINT")));
  EXPECT_THAT(NextSteps(status, {.worker_endpoint = "localhost:50062"}),
              ElementsAre(HasSubstr("start it:  ratequant-worker --address "
                                    "localhost:50062"),
                          HasSubstr("RATEQUANT_WORKER_ENDPOINT")));
}

TEST(NextStepsTest, AnUnknownReasonGetsNoAdvice) {
  EXPECT_THAT(
      NextSteps(ServerError(absl::StatusCode::kInternal, "NEW_REASON"), {}),
      IsEmpty());
}

}  // namespace
}  // namespace ratequant::cli
