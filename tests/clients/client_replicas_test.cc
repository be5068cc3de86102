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
#include "grpcpp/test/mock_stream.h"
#include "ratequant/v1/allocation_service_mock.grpc.pb.h"

namespace ratequant::client {
namespace {

using ::testing::_;
using ::testing::DoAll;
using ::testing::ElementsAre;
using ::testing::InSequence;
using ::testing::NiceMock;
using ::testing::Return;
using ::testing::SetArgPointee;

using MockRegistry = NiceMock<v1::MockRegistryServiceStub>;
using MockAllocation = NiceMock<v1::MockAllocationServiceStub>;
using Reader = grpc::testing::MockClientReader<v1::GetBitMapResponse>;

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
    for (int i = 0; i < 2; ++i) {
      auto registry = std::make_unique<MockRegistry>();
      auto allocation = std::make_unique<MockAllocation>();
      registry_[i] = registry.get();
      allocation_[i] = allocation.get();
      stubs.allocators.push_back({.registry = std::move(registry),
                                  .allocation = std::move(allocation)});
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
  MockAllocation* allocation_[2];
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

// A stream of answers with these etags that ends with `status`; "=" before one
// says that it is unchanged. The client takes it over.
Reader* Stream(const std::vector<std::string>& etags,
               const grpc::Status& status) {
  auto* reader = new Reader();
  InSequence order;
  for (const std::string& etag : etags) {
    v1::GetBitMapResponse answer;
    answer.set_etag(etag.substr(etag[0] == '=' ? 1 : 0));
    if (etag[0] == '=') answer.set_unchanged(true);
    EXPECT_CALL(*reader, Read(_))
        .WillOnce(DoAll(SetArgPointee<0>(answer), Return(true)));
  }
  EXPECT_CALL(*reader, Read(_)).WillOnce(Return(false));
  EXPECT_CALL(*reader, Finish()).WillOnce(Return(status));
  return reader;
}

TEST_F(ReplicasTest, AWatchGoesOnAtTheNextAllocatorWhereItWas) {
  EXPECT_CALL(*allocation_[0], WatchBitMapRaw(_, _))
      .WillOnce(Return(Stream({"a", "b"}, Unavailable())));
  EXPECT_CALL(*allocation_[1], WatchBitMapRaw(_, _))
      .WillOnce([](grpc::ClientContext*, const v1::GetBitMapRequest& request) {
        EXPECT_EQ(request.known_etag(), "b");
        return Stream({"=b", "c"},
                      {grpc::StatusCode::NOT_FOUND, "no calibration"});
      });
  std::vector<std::string> etags;
  const absl::Status ended = client_->WatchBitMap(
      {}, [&](const auto& answer) { etags.push_back(answer.etag()); });
  EXPECT_TRUE(absl::IsNotFound(ended)) << ended;
  EXPECT_THAT(etags, ElementsAre("a", "b", "c"));
}

TEST_F(ReplicasTest, CancellingAWatchEndsItsPause) {
  Cancellation cancellation;
  absl::Notification failed;
  EXPECT_CALL(*allocation_[0], WatchBitMapRaw(_, _)).WillOnce([&] {
    failed.Notify();
    return Stream({}, Unavailable());
  });
  EXPECT_CALL(*allocation_[1], WatchBitMapRaw(_, _)).Times(0);
  std::thread canceller([&] {
    failed.WaitForNotification();
    cancellation.Cancel();
  });
  // The pause is as long as nobody ends it.
  const absl::Status ended = client_->WatchBitMap(
      {}, [](const auto&) {}, &cancellation);
  canceller.join();
  EXPECT_TRUE(absl::IsCancelled(ended)) << ended;
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
