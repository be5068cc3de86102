#ifndef RATEQUANT_TESTS_SERVICES_ALLOCATION_SERVICE_FIXTURE_H_
#define RATEQUANT_TESTS_SERVICES_ALLOCATION_SERVICE_FIXTURE_H_

#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "ratequant/v1/admin_service.grpc.pb.h"
#include "ratequant/v1/allocation_service.grpc.pb.h"
#include "services/allocation/allocator.h"
#include "services/allocation/store/rocksdb_store.h"
#include "services/common/server.h"
#include "services/common/status.h"
#include "tests/services/allocation/failing_disk.h"
#include "tests/services/allocation/temp_dir.h"

namespace ratequant::allocation {

using namespace std::chrono_literals;  // NOLINT

// A real server over TCP with a real database.
class ServiceTest : public ::testing::Test {
 protected:
  explicit ServiceTest(AllocatorOptions options = {})
      : options_(std::move(options)) {
    Start();
  }

  void Start() {
    auto store = RocksDbStore::Open(folder_.path(), disk_.env());
    ASSERT_TRUE(store.ok()) << store.status();
    auto allocator = Allocator::Create(*std::move(store), options_);
    ASSERT_TRUE(allocator.ok()) << allocator.status();
    allocator_ = *std::move(allocator);
    auto server = Server::Start({}, allocator_->services());
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    auto channel = grpc::CreateCustomChannel(
        server_->address(), grpc::InsecureChannelCredentials(), arguments);
    registry_ = v1::RegistryService::NewStub(channel);
    allocation_ = v1::AllocationService::NewStub(channel);
    admin_ = v1::AdminService::NewStub(channel);
  }

  void Restart() {
    server_.reset();
    allocator_.reset();
    Start();
  }

  // Calls a method of a stub and turns what comes back into absl terms.
  template <typename Response, typename Stub, typename Request>
  absl::StatusOr<Response> Call(
      Stub& stub,
      grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                   Response*),
      const Request& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + 60s);
    Response response;
    const grpc::Status status = (stub.*method)(&context, request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response;
  }

  absl::StatusOr<v1::Calibration> Create(const std::string& parent,
                                         const v1::Calibration& calibration) {
    v1::CreateCalibrationRequest request;
    request.set_parent(parent);
    *request.mutable_calibration() = calibration;
    return Call(*registry_, &RegistryStub::CreateCalibration, request);
  }
  absl::StatusOr<v1::Calibration> Get(const std::string& name) {
    v1::GetCalibrationRequest request;
    request.set_name(name);
    return Call(*registry_, &RegistryStub::GetCalibration, request);
  }
  absl::StatusOr<v1::ListCalibrationsResponse> List(
      const std::string& parent, int page_size = 0,
      const std::string& page_token = "") {
    v1::ListCalibrationsRequest request;
    request.set_parent(parent);
    request.set_page_size(page_size);
    request.set_page_token(page_token);
    return Call(*registry_, &RegistryStub::ListCalibrations, request);
  }
  absl::Status Delete(const std::string& name, bool force = false) {
    v1::DeleteCalibrationRequest request;
    request.set_name(name);
    request.set_force(force);
    return Call(*registry_, &RegistryStub::DeleteCalibration, request).status();
  }
  absl::StatusOr<v1::Model> GetModel(const std::string& name) {
    v1::GetModelRequest request;
    request.set_name(name);
    return Call(*registry_, &RegistryStub::GetModel, request);
  }
  absl::StatusOr<v1::ListModelsResponse> ListModels(
      int page_size = 0, const std::string& page_token = "") {
    v1::ListModelsRequest request;
    request.set_page_size(page_size);
    request.set_page_token(page_token);
    return Call(*registry_, &RegistryStub::ListModels, request);
  }
  absl::StatusOr<v1::GetBitMapResponse> GetBitMap(
      const v1::GetBitMapRequest& request) {
    return Call(*allocation_, &AllocationStub::GetBitMap, request);
  }
  absl::StatusOr<v1::RateDistortionCurve> GetCurve(
      const v1::GetRateDistortionCurveRequest& request) {
    return Call(*allocation_, &AllocationStub::GetRateDistortionCurve, request);
  }

  v1::Statistics GetStatistics() {
    const auto got =
        Call(*admin_, &AdminStub::GetStatistics, v1::GetStatisticsRequest());
    EXPECT_TRUE(got.ok()) << got.status();
    return got.ok() ? *got : v1::Statistics();
  }
  absl::StatusOr<v1::Evaluation> Record(const std::string& bit_map,
                                        const v1::Evaluation& evaluation) {
    v1::RecordEvaluationRequest request;
    request.set_bit_map(bit_map);
    *request.mutable_evaluation() = evaluation;
    return Call(*allocation_, &AllocationStub::RecordEvaluation, request);
  }

  // 3 effective bits of models/m over all quantizers.
  static v1::GetBitMapRequest Request(double effective_bits = 3) {
    v1::GetBitMapRequest request;
    request.set_model("models/m");
    request.mutable_budget()->set_effective_bits(effective_bits);
    return request;
  }

  using RegistryStub = v1::RegistryService::StubInterface;
  using AllocationStub = v1::AllocationService::StubInterface;
  using AdminStub = v1::AdminService::StubInterface;

  testing::TempDir folder_;
  testing::FailingDisk disk_;
  AllocatorOptions options_;
  std::unique_ptr<Allocator> allocator_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<RegistryStub> registry_;
  std::unique_ptr<AllocationStub> allocation_;
  std::unique_ptr<AdminStub> admin_;
};

inline void ExpectError(const absl::Status& status, absl::StatusCode code,
                        const std::string& reason,
                        const std::string& field = "") {
  EXPECT_EQ(status.code(), code) << reason << ": " << status;
  EXPECT_EQ(ErrorReason(status), reason) << status;
  EXPECT_FALSE(status.message().empty());
  if (field.empty()) return;
  ASSERT_FALSE(FieldViolations(status).empty()) << status;
  EXPECT_EQ(FieldViolations(status)[0].field, field);
}

inline constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
inline constexpr auto kNotFound = absl::StatusCode::kNotFound;
inline constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;
inline constexpr auto kOutOfRange = absl::StatusCode::kOutOfRange;
inline const std::string kNoDigest(64, '0');

}  // namespace ratequant::allocation

#endif  // RATEQUANT_TESTS_SERVICES_ALLOCATION_SERVICE_FIXTURE_H_
