// Deadlines, retries and errors of the C++ client, over mocked stubs and a
// clock that only sleeping moves.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "clients/cpp/client.h"
#include "clients/cpp/grpc_connection.h"
#include "clients/cpp/status.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/test/mock_stream.h"
#include "ratequant/v1/allocation_service_mock.grpc.pb.h"
#include "ratequant/v1/calibration_service_mock.grpc.pb.h"

namespace ratequant::client {
namespace {

using ::testing::_;
using ::testing::DoAll;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::InSequence;
using ::testing::Pair;
using ::testing::Return;
using ::testing::SetArgPointee;
using ::testing::StartsWith;

// Sleeping is the only thing that takes time.
struct FakeTime {
  absl::Time now = absl::UnixEpoch() + absl::Hours(24 * 365 * 50);
  std::vector<absl::Duration> sleeps;
  double random = 1;

  Environment environment() {
    return {.now = [this] { return now; },
            .sleep =
                [this](absl::Duration d) {
                  sleeps.push_back(d);
                  now += d;
                },
            .wait =
                [this](const absl::Notification& wakeup, absl::Duration d) {
                  if (wakeup.HasBeenNotified()) return true;
                  sleeps.push_back(d);
                  now += d;
                  return false;
                },
            .random = [this] { return random; }};
  }
};

grpc::Status Unavailable() {
  return {grpc::StatusCode::UNAVAILABLE, "connection refused"};
}

// A status as a server sends it: reason, metadata and wrong fields.
grpc::Status WithDetails(grpc::StatusCode code, const std::string& message,
                         const std::string& reason) {
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain("ratequant");
  (*info.mutable_metadata())["model"] = "m";
  google::rpc::BadRequest bad;
  auto* violation = bad.add_field_violations();
  violation->set_field("budget.code_bits");
  violation->set_description("must be at least 1");
  google::rpc::Status details;
  details.set_code(code);
  details.add_details()->PackFrom(info);
  details.add_details()->PackFrom(bad);
  return {code, message, details.SerializeAsString()};
}

class ConnectionTest : public ::testing::Test {
 protected:
  ConnectionTest() {
    auto registry = std::make_unique<v1::MockRegistryServiceStub>();
    auto allocation = std::make_unique<v1::MockAllocationServiceStub>();
    auto calibration = std::make_unique<v1::MockCalibrationServiceStub>();
    registry_ = registry.get();
    allocation_ = allocation.get();
    calibration_ = calibration.get();
    ConnectionOptions options;
    options.allocator_endpoint = "allocator.example:1";
    options.worker_endpoint = "worker.example:2";
    Stubs stubs;
    stubs.allocators.push_back(
        {.registry = std::move(registry), .allocation = std::move(allocation)});
    stubs.calibration = std::move(calibration);
    client_ = std::make_unique<Client>(std::make_unique<GrpcConnection>(
        options, std::move(stubs), time_.environment()));
  }

  FakeTime time_;
  v1::MockRegistryServiceStub* registry_;
  v1::MockAllocationServiceStub* allocation_;
  v1::MockCalibrationServiceStub* calibration_;
  std::unique_ptr<Client> client_;
};

TEST_F(ConnectionTest, ReadSucceedsAfterTransientFailuresWithGrowingPauses) {
  v1::Model model;
  model.set_name("models/m");
  EXPECT_CALL(*registry_, GetModel(_, _, _))
      .WillOnce(Return(Unavailable()))
      .WillOnce(Return(Unavailable()))
      .WillOnce(DoAll(SetArgPointee<2>(model), Return(grpc::Status::OK)));
  auto got = client_->GetModel("m");
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->name(), "models/m");
  EXPECT_THAT(time_.sleeps,
              ElementsAre(absl::Milliseconds(100), absl::Milliseconds(200)));
}

TEST_F(ConnectionTest, PausesAreShortenedAtRandomToNoLessThanHalf) {
  time_.random = 0;
  EXPECT_CALL(*allocation_, GetBitMap(_, _, _))
      .Times(4)
      .WillRepeatedly(Return(Unavailable()));
  EXPECT_FALSE(client_->GetBitMap({}).ok());
  EXPECT_THAT(time_.sleeps,
              ElementsAre(absl::Milliseconds(50), absl::Milliseconds(100),
                          absl::Milliseconds(200)));
}

TEST_F(ConnectionTest, AServerThatStaysAwayIsAnErrorThatSaysWhichAndWhere) {
  EXPECT_CALL(*registry_, ListModels(_, _, _))
      .Times(4)
      .WillRepeatedly(Return(Unavailable()));
  absl::Status status = client_->ListModels().status();
  EXPECT_EQ(status.message(),
            "cannot reach the allocator at allocator.example:1: connection "
            "refused");
  EXPECT_TRUE(IsUnreachable(status));
  EXPECT_EQ(StatusServer(status), Server::kAllocator);
}

TEST_F(ConnectionTest, PermanentFailureIsNotTriedAgain) {
  EXPECT_CALL(*allocation_, GetBitMap(_, _, _))
      .WillOnce(Return(WithDetails(grpc::StatusCode::NOT_FOUND,
                                   "models/m not found", "MODEL_NOT_FOUND")));
  absl::Status status = client_->GetBitMap({}).status();
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_EQ(ErrorReason(status), "MODEL_NOT_FOUND");
  EXPECT_FALSE(IsUnreachable(status));
  EXPECT_TRUE(time_.sleeps.empty());
}

TEST_F(ConnectionTest, NoPauseEndsAfterTheDeadline) {
  // Each attempt takes 15 of the 30 seconds; a third can't begin.
  EXPECT_CALL(*registry_, GetModel(_, _, _)).Times(2).WillRepeatedly([this] {
    time_.now += absl::Seconds(15);
    return Unavailable();
  });
  EXPECT_TRUE(absl::IsUnavailable(client_->GetModel("m").status()));
  EXPECT_EQ(time_.sleeps.size(), 1u);
}

TEST_F(ConnectionTest, EveryAttemptHasTheDeadlineOfTheWholeCall) {
  std::vector<std::chrono::system_clock::time_point> deadlines;
  EXPECT_CALL(*registry_, GetModel(_, _, _))
      .Times(2)
      .WillRepeatedly([&](grpc::ClientContext* context, const auto&, auto*) {
        deadlines.push_back(context->deadline());
        return deadlines.size() == 1 ? Unavailable() : grpc::Status::OK;
      });
  absl::Time start = time_.now;
  EXPECT_TRUE(client_->GetModel("m").ok());
  ASSERT_EQ(deadlines.size(), 2u);
  for (auto deadline : deadlines) {
    EXPECT_EQ(absl::FromChrono(deadline), start + absl::Seconds(30));
  }
}

TEST_F(ConnectionTest, DeletionIsNotTriedAgain) {
  EXPECT_CALL(*registry_, DeleteCalibration(_, _, _))
      .WillOnce(Return(Unavailable()));
  EXPECT_TRUE(IsUnreachable(client_->DeleteCalibration("m", "abc")));
  EXPECT_TRUE(time_.sleeps.empty());
}

TEST_F(ConnectionTest, StoringACalibrationIsTriedAgain) {
  EXPECT_CALL(*registry_, CreateCalibration(_, _, _))
      .WillOnce(Return(Unavailable()))
      .WillOnce(Return(grpc::Status::OK));
  EXPECT_TRUE(client_->CreateCalibration("m", {}).ok());
}

TEST_F(ConnectionTest, ListsFollowPageTokens) {
  v1::ListCalibrationsResponse first;
  first.add_calibrations()->set_name("models/m/calibrations/b");
  first.set_next_page_token("next");
  v1::ListCalibrationsResponse last;
  last.add_calibrations()->set_name("models/m/calibrations/a");
  std::vector<std::string> tokens;
  EXPECT_CALL(*registry_, ListCalibrations(_, _, _))
      .Times(2)
      .WillRepeatedly([&](grpc::ClientContext*,
                          const v1::ListCalibrationsRequest& request,
                          v1::ListCalibrationsResponse* response) {
        EXPECT_EQ(request.parent(), "models/org--m");
        tokens.push_back(request.page_token());
        *response = tokens.size() == 1 ? first : last;
        return grpc::Status::OK;
      });
  auto all = client_->ListCalibrations("org/m");
  ASSERT_TRUE(all.ok());
  ASSERT_EQ(all->size(), 2u);
  EXPECT_EQ((*all)[1].name(), "models/m/calibrations/a");
  EXPECT_THAT(tokens, ElementsAre("", "next"));
}

TEST_F(ConnectionTest, ReasonMetadataAndFieldsOfAnErrorAreKept) {
  EXPECT_CALL(*allocation_, GetRateDistortionCurve(_, _, _))
      .WillOnce(Return(WithDetails(grpc::StatusCode::INVALID_ARGUMENT,
                                   "bad budget", "BUDGET_INVALID")));
  absl::Status status = client_->GetRateDistortionCurve({}).status();
  EXPECT_EQ(ErrorReason(status), "BUDGET_INVALID");
  EXPECT_THAT(ErrorMetadata(status), ElementsAre(Pair("model", "m")));
  EXPECT_THAT(
      FieldViolations(status),
      ElementsAre(FieldViolation{"budget.code_bits", "must be at least 1"}));
}

TEST_F(ConnectionTest, AServersOwnUnavailableIsNotUnreachable) {
  EXPECT_CALL(*registry_, GetModel(_, _, _))
      .Times(4)
      .WillRepeatedly(Return(WithDetails(grpc::StatusCode::UNAVAILABLE,
                                         "disk failed", "STORE_ERROR")));
  absl::Status status = client_->GetModel("m").status();
  EXPECT_FALSE(IsUnreachable(status));
  EXPECT_EQ(status.message(), "disk failed");
}

TEST_F(ConnectionTest, DeadlineWithoutAnAnswerSaysHowLongItWaited) {
  EXPECT_CALL(*registry_, GetModel(_, _, _))
      .WillOnce(Return(grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "")));
  absl::Status status = client_->GetModel("m").status();
  EXPECT_TRUE(IsUnreachable(status));
  EXPECT_EQ(status.message(),
            "no answer from the allocator at allocator.example:1 within 30s");
}

TEST(StatusTest, DetailsThatCannotBeParsedLeaveCodeAndMessage) {
  absl::Status status = FromGrpcStatus(
      {grpc::StatusCode::INTERNAL, "broken", std::string("\xff\xff\xff")});
  EXPECT_EQ(status, absl::InternalError("broken"));
  EXPECT_EQ(ErrorReason(status), "");
  EXPECT_TRUE(FieldViolations(status).empty());
}

using Reader = grpc::testing::MockClientReader<v1::CalibrateProgress>;

v1::CalibrateProgress Progress(v1::CalibrateProgress::Phase phase) {
  v1::CalibrateProgress progress;
  progress.set_phase(phase);
  return progress;
}

class CalibrateTest : public ConnectionTest {
 protected:
  // A stream that gives `messages` and ends with `status`.
  void Stream(const std::vector<v1::CalibrateProgress>& messages,
              const grpc::Status& status) {
    auto* reader = new Reader();  // the client takes it over
    EXPECT_CALL(*calibration_, CalibrateModelRaw(_, _))
        .WillOnce(Return(reader));
    InSequence order;
    for (const auto& message : messages) {
      EXPECT_CALL(*reader, Read(_))
          .WillOnce(DoAll(SetArgPointee<0>(message), Return(true)));
    }
    EXPECT_CALL(*reader, Read(_)).WillOnce(Return(false));
    EXPECT_CALL(*reader, Finish()).WillOnce(Return(status));
  }

  absl::StatusOr<v1::CalibrateProgress> Run(
      Cancellation* cancellation = nullptr) {
    return client_->CalibrateModel(
        {}, [this](const auto& p) { seen_.push_back(p.phase()); },
        cancellation);
  }

  std::vector<v1::CalibrateProgress::Phase> seen_;
};

TEST_F(CalibrateTest, EveryMessageIsSeenAndTheLastReturned) {
  v1::CalibrateProgress done = Progress(v1::CalibrateProgress::DONE);
  done.set_calibration("models/m/calibrations/a");
  Stream({Progress(v1::CalibrateProgress::LOADING), done}, grpc::Status::OK);
  auto last = Run();
  ASSERT_TRUE(last.ok()) << last.status();
  EXPECT_EQ(last->calibration(), "models/m/calibrations/a");
  EXPECT_THAT(seen_, ElementsAre(v1::CalibrateProgress::LOADING,
                                 v1::CalibrateProgress::DONE));
}

TEST_F(CalibrateTest, AnUnreachableWorkerIsNotTriedAgain) {
  Stream({}, Unavailable());
  absl::Status status = Run().status();
  EXPECT_EQ(status.message(),
            "cannot reach the worker at worker.example:2: connection refused");
  EXPECT_EQ(StatusServer(status), Server::kWorker);
  EXPECT_TRUE(time_.sleeps.empty());
}

TEST_F(CalibrateTest, AConnectionThatBreaksMidwaySaysSo) {
  Stream({Progress(v1::CalibrateProgress::CAPTURING)},
         {grpc::StatusCode::UNAVAILABLE, "Socket closed"});
  absl::Status status = Run().status();
  EXPECT_THAT(std::string(status.message()),
              StartsWith("lost the connection to the worker"));
  EXPECT_TRUE(IsUnreachable(status));
}

TEST_F(CalibrateTest, AStreamThatEndsWithoutAResultIsAnError) {
  Stream({Progress(v1::CalibrateProgress::FITTING)}, grpc::Status::OK);
  absl::Status status = Run().status();
  EXPECT_TRUE(absl::IsInternal(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("without a result"));
}

TEST_F(CalibrateTest, CancelBeforeTheCallEndsItAtOnce) {
  Stream({}, {grpc::StatusCode::CANCELLED, "CANCELLED"});
  Cancellation cancellation;
  cancellation.Cancel();
  absl::Status status = Run(&cancellation).status();
  EXPECT_TRUE(absl::IsCancelled(status));
  EXPECT_EQ(StatusServer(status), Server::kUnknown);
}

TEST_F(CalibrateTest, AWorkersOwnCancelledIsItsFailure) {
  Stream({}, {grpc::StatusCode::CANCELLED, "shutting down"});
  Cancellation cancellation;
  absl::Status status = Run(&cancellation).status();
  EXPECT_TRUE(absl::IsCancelled(status));
  EXPECT_EQ(StatusServer(status), Server::kWorker);
}

}  // namespace
}  // namespace ratequant::client
