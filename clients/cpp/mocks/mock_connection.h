#ifndef RATEQUANT_CLIENTS_CPP_MOCKS_MOCK_CONNECTION_H_
#define RATEQUANT_CLIENTS_CPP_MOCKS_MOCK_CONNECTION_H_

#include <functional>

#include "clients/cpp/connection.h"
#include "gmock/gmock.h"

namespace ratequant::client {

// A connection whose answers a test chooses, for programs that use Client or
// BitMapSource:
//
//   auto connection = std::make_unique<MockConnection>();
//   EXPECT_CALL(*connection, GetBitMap).WillOnce(Return(answer));
//   Client client(std::move(connection));
class MockConnection : public Connection {
 public:
  MOCK_METHOD(absl::StatusOr<v1::Calibration>, CreateCalibration,
              (const v1::CreateCalibrationRequest&), (override));
  MOCK_METHOD(absl::StatusOr<v1::Calibration>, GetCalibration,
              (const v1::GetCalibrationRequest&), (override));
  MOCK_METHOD(absl::StatusOr<v1::ListCalibrationsResponse>, ListCalibrations,
              (const v1::ListCalibrationsRequest&), (override));
  MOCK_METHOD(absl::Status, DeleteCalibration,
              (const v1::DeleteCalibrationRequest&), (override));
  MOCK_METHOD(absl::StatusOr<v1::Model>, GetModel, (const v1::GetModelRequest&),
              (override));
  MOCK_METHOD(absl::StatusOr<v1::ListModelsResponse>, ListModels,
              (const v1::ListModelsRequest&), (override));
  MOCK_METHOD(absl::StatusOr<v1::NamedPolicy>, CreatePolicy,
              (const v1::CreatePolicyRequest&), (override));
  MOCK_METHOD(absl::StatusOr<v1::NamedPolicy>, GetPolicy,
              (const v1::GetPolicyRequest&), (override));
  MOCK_METHOD(absl::StatusOr<v1::ListPoliciesResponse>, ListPolicies,
              (const v1::ListPoliciesRequest&), (override));
  MOCK_METHOD(absl::Status, DeletePolicy, (const v1::DeletePolicyRequest&),
              (override));
  MOCK_METHOD(absl::StatusOr<v1::GetBitMapResponse>, GetBitMap,
              (const v1::GetBitMapRequest&, Cancellation*), (override));
  MOCK_METHOD(absl::StatusOr<v1::RateDistortionCurve>, GetRateDistortionCurve,
              (const v1::GetRateDistortionCurveRequest&), (override));
  MOCK_METHOD(absl::StatusOr<v1::Evaluation>, RecordEvaluation,
              (const v1::RecordEvaluationRequest&), (override));
  MOCK_METHOD(absl::StatusOr<v1::ListEvaluationsResponse>, ListEvaluations,
              (const v1::ListEvaluationsRequest&), (override));
  MOCK_METHOD(absl::Status, DeleteEvaluation,
              (const v1::DeleteEvaluationRequest&), (override));
  MOCK_METHOD(absl::StatusOr<v1::Backup>, CreateBackup,
              (const v1::CreateBackupRequest&), (override));
  MOCK_METHOD(absl::StatusOr<v1::Statistics>, GetStatistics,
              (const v1::GetStatisticsRequest&), (override));
  MOCK_METHOD(absl::Status, WatchBitMap,
              (v1::GetBitMapRequest,
               const std::function<void(const v1::GetBitMapResponse&)>&,
               Cancellation*),
              (override));
  MOCK_METHOD(absl::StatusOr<v1::CalibrateProgress>, CalibrateModel,
              (const v1::CalibrateModelRequest&,
               const std::function<void(const v1::CalibrateProgress&)>&,
               Cancellation*),
              (override));
};

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_MOCKS_MOCK_CONNECTION_H_
