// Reads over several allocators: hedging, failover and cancellation, over
// mocked stubs, and over real servers where calls must really end.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "clients/cpp/client.h"
#include "clients/cpp/grpc_connection.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "ratequant/v1/allocation_service_mock.grpc.pb.h"

namespace ratequant::client {
namespace {

using ::testing::_;
using ::testing::DoAll;
using ::testing::HasSubstr;
using ::testing::NiceMock;
using ::testing::Return;
using ::testing::SetArgPointee;

using MockRegistry = NiceMock<v1::MockRegistryServiceStub>;

v1::Model Named(const std::string& name) {
  v1::Model model;
  model.set_name(name);
  return model;
}

grpc::Status Unavailable() {
  return {grpc::StatusCode::UNAVAILABLE, "connection refused"};
}

// Two allocators. Waiting for a hedge ends when an answer came.
class ReplicasTest : public ::testing::Test {
 protected:
  ReplicasTest() {
    Stubs stubs;
    for (MockRegistry*& registry : registry_) {
      auto stub = std::make_unique<MockRegistry>();
      registry = stub.get();
      stubs.allocators.push_back({.registry = std::move(stub)});
    }
    Environment environment = {
        .now = [] { return absl::UnixEpoch() + absl::Hours(24 * 365 * 50); },
        .sleep = [this](absl::Duration) { ++sleeps_; },
        .wait =
            [](const absl::Notification& wakeup, absl::Duration) {
              wakeup.WaitForNotification();
              return true;
            },
        .random = [] { return 1.0; }};
    client_ = std::make_unique<Client>(std::make_unique<GrpcConnection>(
        ConnectionOptions{.allocator_endpoint = "a.example:1",
                          .allocator_replicas = {"b.example:1"}},
        std::move(stubs), environment));
  }

  std::atomic<int> sleeps_ = 0;
  MockRegistry* registry_[2];
  std::unique_ptr<Client> client_;
};

TEST_F(ReplicasTest, AnAnswerInTimeIsAskedOfOneAllocatorOnly) {
  EXPECT_CALL(*registry_[0], GetModel(_, _, _))
      .WillOnce(DoAll(SetArgPointee<2>(Named("a")), Return(grpc::Status::OK)));
  EXPECT_CALL(*registry_[1], GetModel(_, _, _)).Times(0);
  EXPECT_EQ(client_->GetModel("m")->name(), "a");
}

TEST_F(ReplicasTest, AFailedAllocatorIsReplacedWithoutAPause) {
  EXPECT_CALL(*registry_[0], GetModel(_, _, _)).WillOnce(Return(Unavailable()));
  EXPECT_CALL(*registry_[1], GetModel(_, _, _))
      .Times(2)
      .WillRepeatedly(
          DoAll(SetArgPointee<2>(Named("b")), Return(grpc::Status::OK)));
  EXPECT_EQ(client_->GetModel("m")->name(), "b");
  // And the next read begins with the one that answered.
  EXPECT_EQ(client_->GetModel("m")->name(), "b");
  EXPECT_EQ(sleeps_, 0);
}

TEST_F(ReplicasTest, ARefusalIsTheAnswer) {
  EXPECT_CALL(*registry_[0], GetModel(_, _, _))
      .WillOnce(Return(grpc::Status(grpc::StatusCode::NOT_FOUND, "no model")));
  EXPECT_CALL(*registry_[1], GetModel(_, _, _)).Times(0);
  EXPECT_TRUE(absl::IsNotFound(client_->GetModel("m").status()));
}

TEST_F(ReplicasTest, WhenAllAreAwayTheErrorNamesThemAll) {
  for (MockRegistry* registry : registry_) {
    EXPECT_CALL(*registry, GetModel(_, _, _))
        .Times(4)
        .WillRepeatedly(Return(Unavailable()));
  }
  EXPECT_EQ(client_->GetModel("m").status().message(),
            "cannot reach the allocator at a.example:1, b.example:1: "
            "connection refused");
  EXPECT_EQ(sleeps_, 3);
}

TEST_F(ReplicasTest, AWriteIsNeverAtTwoAllocatorsAtOnceButMovesOn) {
  EXPECT_CALL(*registry_[0], CreateCalibration(_, _, _))
      .WillOnce(Return(Unavailable()));
  EXPECT_CALL(*registry_[1], CreateCalibration(_, _, _))
      .WillOnce(Return(grpc::Status::OK));
  EXPECT_TRUE(client_->CreateCalibration("m", {}).ok());
  EXPECT_EQ(sleeps_, 1);
}

TEST_F(ReplicasTest, ADeletionStaysWithTheFirst) {
  EXPECT_CALL(*registry_[0], DeleteCalibration(_, _, _))
      .WillOnce(Return(Unavailable()));
  EXPECT_CALL(*registry_[1], DeleteCalibration(_, _, _)).Times(0);
  EXPECT_FALSE(client_->DeleteCalibration("m", "c").ok());
}

// An allocator on a real port that answers GetBitMap with its name, or keeps
// the call until it is cancelled.
class Server final : public v1::AllocationService::Service {
 public:
  explicit Server(std::string name) : name_(std::move(name)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }

  ~Server() override { server_->Shutdown(); }

  std::string endpoint() const { return absl::StrCat("127.0.0.1:", port_); }

  grpc::Status GetBitMap(grpc::ServerContext* context,
                         const v1::GetBitMapRequest*,
                         v1::GetBitMapResponse* response) override {
    std::call_once(once_called_, [&] { called.Notify(); });
    if (!name_.empty()) {
      response->set_etag(name_);
      return grpc::Status::OK;
    }
    while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));
    std::call_once(once_cancelled_, [&] { cancelled.Notify(); });
    return grpc::Status::CANCELLED;
  }

  absl::Notification called;
  absl::Notification cancelled;

 private:
  const std::string name_;  // "": never answers
  std::once_flag once_called_, once_cancelled_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

TEST(HedgeTest, TheSlowCallIsCancelledWhenTheOtherAnswers) {
  Server silent("");
  Server other("other");
  const ConnectionOptions options = {.allocator_endpoint = silent.endpoint(),
                                     .allocator_replicas = {other.endpoint()}};
  Environment environment = Environment::Real();
  environment.wait = [&](const absl::Notification&, absl::Duration) {
    silent.called.WaitForNotification();
    return false;
  };
  Client client(std::make_unique<GrpcConnection>(options, MakeStubs(options),
                                                 environment));
  const auto answer = client.GetBitMap({});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->etag(), "other");
  silent.cancelled.WaitForNotification();
}

// The number of allocators.
class CancelTest : public ::testing::TestWithParam<int> {};

TEST_P(CancelTest, AReadEndsWhenItIsCancelledFromAnotherThread) {
  Server silent("");
  const ConnectionOptions options = {
      .allocator_endpoint = silent.endpoint(),
      .allocator_replicas =
          std::vector<std::string>(GetParam() - 1, silent.endpoint())};
  Client client(options);
  Cancellation cancellation;
  std::thread canceller([&] {
    silent.called.WaitForNotification();
    cancellation.Cancel();
  });
  const auto answer = client.GetBitMap({}, &cancellation);
  canceller.join();
  EXPECT_TRUE(absl::IsCancelled(answer.status())) << answer.status();
}

INSTANTIATE_TEST_SUITE_P(OneAndTwoAllocators, CancelTest,
                         ::testing::Values(1, 2));

}  // namespace
}  // namespace ratequant::client
