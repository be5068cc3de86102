#include "services/common/server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <thread>

#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "ratequant/v1/allocation_service.grpc.pb.h"
#include "services/common/shutdown_signal.h"
#include "services/common/status.h"

namespace ratequant {
namespace {

using namespace std::chrono_literals;  // NOLINT

constexpr char kService[] = "ratequant.v1.RegistryService";

// GetModel answers when released, so that a test can hold a call open.
class SlowRegistry : public v1::RegistryService::CallbackService {
 public:
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const v1::GetModelRequest* request,
                                     v1::Model* response) override {
    auto* reactor = context->DefaultReactor();
    started_.set_value();
    waiter_ = std::thread([this, reactor, request, response] {
      release_.get_future().wait();
      response->set_name(request->name());
      reactor->Finish(grpc::Status::OK);
    });
    return reactor;
  }

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest*,
                                       v1::ListModelsResponse*) override {
    auto* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpcStatus(FieldError("INVALID_PAGE_SIZE", "page_size",
                                            "is -1; use 0 or more",
                                            {{"page_size", "-1"}})));
    return reactor;
  }

  ~SlowRegistry() override {
    if (waiter_.joinable()) waiter_.join();
  }

  std::promise<void> started_, release_;

 private:
  std::thread waiter_;
};

std::shared_ptr<grpc::Channel> Connect(const Server& server) {
  return grpc::CreateChannel(server.address(),
                             grpc::InsecureChannelCredentials());
}

// grpc.health.v1.Health/Check by hand: the raw bytes of HealthCheckResponse, or
// the status code. There is no generated stub in the system's packages.
grpc::Status Check(const std::shared_ptr<grpc::Channel>& channel,
                   const std::string& service, int* serving) {
  std::string request;
  if (!service.empty()) {
    request = std::string("\x0a") + static_cast<char>(service.size()) + service;
  }
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + 10s);
  grpc::CompletionQueue queue;
  grpc::Slice slice(request);
  grpc::ByteBuffer out(&slice, 1), in;
  auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check",
                                    out, &queue);
  call->StartCall();
  grpc::Status status;
  call->Finish(&in, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  if (!status.ok()) return status;
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(in.Dump(&slices).ok());
  std::string bytes;
  for (const grpc::Slice& part : slices) {
    bytes.append(reinterpret_cast<const char*>(part.begin()), part.size());
  }
  *serving = bytes.size() == 2 ? bytes[1] : 0;
  return status;
}

std::string TempPath(const std::string& name) {
  return (std::filesystem::temp_directory_path() /
          ("rq_server_test_" + std::to_string(getpid()) + "_" + name))
      .string();
}

TEST(ServerTest, PortZeroIsChosenAndWrittenToThePortFile) {
  SlowRegistry registry;
  ServerOptions options;
  options.port_file = TempPath("port");
  auto server = Server::Start(options, {{&registry, kService}});
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_GT((*server)->port(), 0);
  int written = 0;
  std::ifstream(options.port_file) >> written;
  EXPECT_EQ(written, (*server)->port());
  (*server)->Shutdown(1s);
  EXPECT_FALSE(std::filesystem::exists(options.port_file));
}

TEST(ServerTest, ErrorDetailsReachTheClient) {
  SlowRegistry registry;
  auto server = Server::Start({}, {{&registry, kService}});
  ASSERT_TRUE(server.ok()) << server.status();
  auto stub = v1::RegistryService::NewStub(Connect(**server));
  grpc::ClientContext context;
  v1::ListModelsResponse response;
  const absl::Status status =
      FromGrpcStatus(stub->ListModels(&context, {}, &response));
  EXPECT_EQ(ErrorReason(status), "INVALID_PAGE_SIZE");
  EXPECT_EQ(ErrorInfoMetadata(status).at("page_size"), "-1");
  EXPECT_EQ(FieldViolations(status).at(0).field, "page_size");
}

TEST(ServerTest, HealthFollowsSetServingForTheServerAndEachService) {
  SlowRegistry registry;
  auto server = Server::Start({}, {{&registry, kService}});
  ASSERT_TRUE(server.ok()) << server.status();
  auto channel = Connect(**server);
  for (const std::string service : {"", kService}) {
    int serving = 0;
    ASSERT_TRUE(Check(channel, service, &serving).ok());
    EXPECT_EQ(serving, 1) << service;  // SERVING
  }
  (*server)->SetServing(false);
  for (const std::string service : {"", kService}) {
    int serving = 0;
    ASSERT_TRUE(Check(channel, service, &serving).ok());
    EXPECT_EQ(serving, 2) << service;  // NOT_SERVING
  }
  int serving = 0;
  EXPECT_EQ(Check(channel, "no.such.Service", &serving).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST(ServerTest, APortInUseIsAClearError) {
  SlowRegistry first, second;
  auto server = Server::Start({}, {{&first, kService}});
  ASSERT_TRUE(server.ok()) << server.status();
  ServerOptions options;
  options.address = (*server)->address();
  auto clash = Server::Start(options, {{&second, kService}});
  ASSERT_FALSE(clash.ok());
  EXPECT_EQ(ErrorReason(clash.status()), "ADDRESS_UNAVAILABLE");
  EXPECT_NE(std::string(clash.status().message()).find("already in use"),
            std::string::npos)
      << clash.status();
}

TEST(ServerTest, OnlyLoopbackWithoutInsecure) {
  SlowRegistry registry;
  ServerOptions options;
  options.address = "0.0.0.0:0";
  auto refused = Server::Start(options, {{&registry, kService}});
  EXPECT_EQ(ErrorReason(refused.status()), "INSECURE_ADDRESS");
  options.insecure = true;
  EXPECT_TRUE(Server::Start(options, {{&registry, kService}}).ok());
}

TEST(ServerTest, ShutdownLetsARunningCallFinish) {
  SlowRegistry registry;
  auto server = Server::Start({}, {{&registry, kService}});
  ASSERT_TRUE(server.ok()) << server.status();
  auto stub = v1::RegistryService::NewStub(Connect(**server));
  auto call = std::async(std::launch::async, [&stub] {
    grpc::ClientContext context;
    v1::GetModelRequest request;
    request.set_name("models/m");
    v1::Model model;
    const grpc::Status status = stub->GetModel(&context, request, &model);
    return status.ok() ? model.name() : status.error_message();
  });
  registry.started_.get_future().wait();
  auto shutdown =
      std::async(std::launch::async, [&server] { (*server)->Shutdown(30s); });
  EXPECT_EQ(shutdown.wait_for(50ms), std::future_status::timeout);
  registry.release_.set_value();
  EXPECT_EQ(call.get(), "models/m");
  EXPECT_EQ(shutdown.wait_for(10s), std::future_status::ready);
}

TEST(ServerTest, AnUnwritablePortFileIsAnError) {
  SlowRegistry registry;
  ServerOptions options;
  options.port_file = "/no/such/folder/port";
  auto server = Server::Start(options, {{&registry, kService}});
  EXPECT_EQ(ErrorReason(server.status()), "PORT_FILE_UNWRITABLE");
}

TEST(ShutdownSignalTest, WaitReturnsTheSignal) {
  ShutdownSignal signal;
  auto waiting =
      std::async(std::launch::async, [&signal] { return signal.Wait(); });
  kill(getpid(), SIGTERM);
  EXPECT_EQ(waiting.get(), SIGTERM);
}

}  // namespace
}  // namespace ratequant
