#include "clients/cpp/connection.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/support/channel_arguments.h"

namespace ratequant::client {
namespace {

// A calibration's tables take about 25 bytes for each group, width and
// quantizer; 64 MiB holds far more than the largest model.
constexpr int kMaxMessageBytes = 64 << 20;

std::shared_ptr<grpc::Channel> MakeChannel(const ConnectionOptions& options,
                                           const std::string& endpoint) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  // Retries are this library's (retry.h), and they must meet a channel that
  // connects anew, not one that still waits after its last failure.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  // Notices a machine that died without closing its connections. Servers take
  // more than one ping in five minutes as abuse.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 6 * 60 * 1000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20 * 1000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  return grpc::CreateCustomChannel(endpoint,
                                   options.credentials
                                       ? options.credentials
                                       : grpc::InsecureChannelCredentials(),
                                   arguments);
}

// gRPC wraps what went wrong in its own words; the system's come last.
std::string Cause(absl::string_view message) {
  size_t colon = message.rfind(": ");
  bool wrapped =
      absl::StartsWith(message, "failed to connect to all addresses");
  if (wrapped && colon != absl::string_view::npos) {
    message.remove_prefix(colon + 2);
  }
  return std::string(message);
}

}  // namespace

Stubs MakeStubs(const ConnectionOptions& options) {
  auto allocator = MakeChannel(options, options.allocator_endpoint);
  auto worker = MakeChannel(options, options.worker_endpoint);
  return {.registry = v1::RegistryService::NewStub(allocator),
          .allocation = v1::AllocationService::NewStub(allocator),
          .admin = v1::AdminService::NewStub(allocator),
          .calibration = v1::CalibrationService::NewStub(worker)};
}

Connection::Connection(ConnectionOptions options, Stubs stubs,
                       Environment environment)
    : options_(std::move(options)),
      stubs_(std::move(stubs)),
      environment_(std::move(environment)) {}

absl::Status Connection::Explain(absl::Status status, Server server,
                                 absl::Duration timeout) const {
  if (status.ok()) return status;
  if (IsUnreachable(status)) {
    std::string where =
        absl::StrCat(ServerName(server), " at ",
                     server == Server::kWorker ? options_.worker_endpoint
                                               : options_.allocator_endpoint);
    status =
        absl::IsUnavailable(status)
            ? absl::UnavailableError(absl::StrCat(
                  "cannot reach the ", where, ": ", Cause(status.message())))
            : absl::DeadlineExceededError(
                  absl::StrCat("no answer from the ", where, " within ",
                               absl::FormatDuration(timeout)));
  }
  SetStatusServer(status, server);
  return status;
}

absl::Status Connection::CallOnce(absl::Time deadline, const Call& call) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  return FromGrpcStatus(call(&context));
}

absl::Status Connection::CallWithRetry(const Call& call) {
  absl::Time deadline = environment_.now() + options_.timeout;
  absl::Status status =
      RetryTransient(options_.retry, environment_, deadline,
                     [&] { return CallOnce(deadline, call); });
  return Explain(std::move(status), Server::kAllocator, options_.timeout);
}

absl::StatusOr<v1::Calibration> Connection::CreateCalibration(
    const v1::CreateCalibrationRequest& request) {
  v1::Calibration response;
  absl::Status status = CallWithRetry([&](grpc::ClientContext* context) {
    return stubs_.registry->CreateCalibration(context, request, &response);
  });
  if (!status.ok()) return status;
  return response;
}

absl::StatusOr<v1::Calibration> Connection::GetCalibration(
    const v1::GetCalibrationRequest& request) {
  v1::Calibration response;
  absl::Status status = CallWithRetry([&](grpc::ClientContext* context) {
    return stubs_.registry->GetCalibration(context, request, &response);
  });
  if (!status.ok()) return status;
  return response;
}

absl::StatusOr<v1::ListCalibrationsResponse> Connection::ListCalibrations(
    const v1::ListCalibrationsRequest& request) {
  v1::ListCalibrationsResponse response;
  absl::Status status = CallWithRetry([&](grpc::ClientContext* context) {
    return stubs_.registry->ListCalibrations(context, request, &response);
  });
  if (!status.ok()) return status;
  return response;
}

absl::Status Connection::DeleteCalibration(
    const v1::DeleteCalibrationRequest& request) {
  google::protobuf::Empty response;
  absl::Status status = CallOnce(
      environment_.now() + options_.timeout, [&](grpc::ClientContext* context) {
        return stubs_.registry->DeleteCalibration(context, request, &response);
      });
  return Explain(std::move(status), Server::kAllocator, options_.timeout);
}

absl::StatusOr<v1::Model> Connection::GetModel(
    const v1::GetModelRequest& request) {
  v1::Model response;
  absl::Status status = CallWithRetry([&](grpc::ClientContext* context) {
    return stubs_.registry->GetModel(context, request, &response);
  });
  if (!status.ok()) return status;
  return response;
}

absl::StatusOr<v1::ListModelsResponse> Connection::ListModels(
    const v1::ListModelsRequest& request) {
  v1::ListModelsResponse response;
  absl::Status status = CallWithRetry([&](grpc::ClientContext* context) {
    return stubs_.registry->ListModels(context, request, &response);
  });
  if (!status.ok()) return status;
  return response;
}

absl::StatusOr<v1::NamedPolicy> Connection::CreatePolicy(
    const v1::CreatePolicyRequest& request) {
  v1::NamedPolicy response;
  absl::Status status = CallWithRetry([&](grpc::ClientContext* context) {
    return stubs_.registry->CreatePolicy(context, request, &response);
  });
  if (!status.ok()) return status;
  return response;
}

absl::StatusOr<v1::NamedPolicy> Connection::GetPolicy(
    const v1::GetPolicyRequest& request) {
  v1::NamedPolicy response;
  absl::Status status = CallWithRetry([&](grpc::ClientContext* context) {
    return stubs_.registry->GetPolicy(context, request, &response);
  });
  if (!status.ok()) return status;
  return response;
}

absl::StatusOr<v1::ListPoliciesResponse> Connection::ListPolicies(
    const v1::ListPoliciesRequest& request) {
  v1::ListPoliciesResponse response;
  absl::Status status = CallWithRetry([&](grpc::ClientContext* context) {
    return stubs_.registry->ListPolicies(context, request, &response);
  });
  if (!status.ok()) return status;
  return response;
}

absl::Status Connection::DeletePolicy(const v1::DeletePolicyRequest& request) {
  google::protobuf::Empty response;
  absl::Status status = CallOnce(
      environment_.now() + options_.timeout, [&](grpc::ClientContext* context) {
        return stubs_.registry->DeletePolicy(context, request, &response);
      });
  return Explain(std::move(status), Server::kAllocator, options_.timeout);
}

absl::StatusOr<v1::GetBitMapResponse> Connection::GetBitMap(
    const v1::GetBitMapRequest& request) {
  v1::GetBitMapResponse response;
  absl::Status status = CallWithRetry([&](grpc::ClientContext* context) {
    return stubs_.allocation->GetBitMap(context, request, &response);
  });
  if (!status.ok()) return status;
  return response;
}

absl::StatusOr<v1::RateDistortionCurve> Connection::GetRateDistortionCurve(
    const v1::GetRateDistortionCurveRequest& request) {
  v1::RateDistortionCurve response;
  absl::Status status = CallWithRetry([&](grpc::ClientContext* context) {
    return stubs_.allocation->GetRateDistortionCurve(context, request,
                                                     &response);
  });
  if (!status.ok()) return status;
  return response;
}

absl::StatusOr<v1::Evaluation> Connection::RecordEvaluation(
    const v1::RecordEvaluationRequest& request) {
  v1::Evaluation response;
  absl::Status status = CallWithRetry([&](grpc::ClientContext* context) {
    return stubs_.allocation->RecordEvaluation(context, request, &response);
  });
  if (!status.ok()) return status;
  return response;
}

absl::StatusOr<v1::ListEvaluationsResponse> Connection::ListEvaluations(
    const v1::ListEvaluationsRequest& request) {
  v1::ListEvaluationsResponse response;
  absl::Status status = CallWithRetry([&](grpc::ClientContext* context) {
    return stubs_.registry->ListEvaluations(context, request, &response);
  });
  if (!status.ok()) return status;
  return response;
}

absl::Status Connection::DeleteEvaluation(
    const v1::DeleteEvaluationRequest& request) {
  google::protobuf::Empty response;
  absl::Status status = CallOnce(
      environment_.now() + options_.timeout, [&](grpc::ClientContext* context) {
        return stubs_.registry->DeleteEvaluation(context, request, &response);
      });
  return Explain(std::move(status), Server::kAllocator, options_.timeout);
}

absl::StatusOr<v1::Backup> Connection::CreateBackup(
    const v1::CreateBackupRequest& request) {
  v1::Backup response;
  absl::Status status = CallOnce(
      environment_.now() + options_.timeout, [&](grpc::ClientContext* context) {
        return stubs_.admin->CreateBackup(context, request, &response);
      });
  status = Explain(std::move(status), Server::kAllocator, options_.timeout);
  if (!status.ok()) return status;
  return response;
}

absl::StatusOr<v1::Statistics> Connection::GetStatistics(
    const v1::GetStatisticsRequest& request) {
  v1::Statistics response;
  absl::Status status = CallWithRetry([&](grpc::ClientContext* context) {
    return stubs_.admin->GetStatistics(context, request, &response);
  });
  if (!status.ok()) return status;
  return response;
}

absl::Status Connection::WatchOnce(
    v1::GetBitMapRequest* request, bool resumed, bool* heard,
    const std::function<void(const v1::GetBitMapResponse&)>& on_answer,
    Cancellation* cancellation) {
  grpc::ClientContext context;
  Cancellation::Scope scope(cancellation, &context);
  const auto reader = stubs_.allocation->WatchBitMap(&context, *request);
  v1::GetBitMapResponse answer;
  while (reader->Read(&answer)) {
    *heard = true;
    request->set_known_etag(answer.etag());
    if (!resumed || !answer.unchanged()) on_answer(answer);
  }
  return FromGrpcStatus(reader->Finish());
}

absl::Status Connection::WatchBitMap(
    v1::GetBitMapRequest request,
    const std::function<void(const v1::GetBitMapResponse&)>& on_answer,
    Cancellation* cancellation) {
  const auto cancelled = [cancellation] {
    return cancellation != nullptr && cancellation->cancelled();
  };
  bool resumed = false, again = true;
  absl::Status status;
  while (again) {
    again = false;
    status = RetryTransient(
        options_.retry, environment_, absl::InfiniteFuture(), [&] {
          bool heard = false;
          absl::Status ended = cancelled()
                                   ? absl::CancelledError()
                                   : WatchOnce(&request, resumed, &heard,
                                               on_answer, cancellation);
          resumed = true;
          // Only failures in a row count.
          again = heard && absl::IsUnavailable(ended);
          return again ? absl::OkStatus() : ended;
        });
  }
  if (cancelled()) return absl::CancelledError("the watch was cancelled");
  return Explain(std::move(status), Server::kAllocator,
                 absl::InfiniteDuration());
}

absl::StatusOr<v1::CalibrateProgress> Connection::CalibrateModel(
    const v1::CalibrateModelRequest& request,
    const std::function<void(const v1::CalibrateProgress&)>& on_progress,
    Cancellation* cancellation) {
  absl::Duration timeout =
      options_.calibrate_timeout.value_or(absl::InfiniteDuration());
  grpc::ClientContext context;
  if (options_.calibrate_timeout.has_value()) {
    context.set_deadline(absl::ToChronoTime(environment_.now() + timeout));
  }
  Cancellation::Scope scope(cancellation, &context);
  auto reader = stubs_.calibration->CalibrateModel(&context, request);
  v1::CalibrateProgress message;
  v1::CalibrateProgress last;
  while (reader->Read(&message)) {
    on_progress(message);
    last = message;
  }
  absl::Status status = FromGrpcStatus(reader->Finish());
  // The connection breaks off with UNAVAILABLE as well when the call is
  // cancelled while it still connects.
  if (!status.ok() && cancellation != nullptr && cancellation->cancelled()) {
    return absl::CancelledError("the calibration was cancelled");
  }
  if (status.ok() && last.phase() != v1::CalibrateProgress::DONE) {
    status = absl::InternalError(
        "the worker ended the calibration without a result");
  }
  if (status.ok()) return last;
  bool broke_off = absl::IsUnavailable(status) && IsUnreachable(status) &&
                   last.phase() != v1::CalibrateProgress::PHASE_UNSPECIFIED;
  if (broke_off) {
    status = absl::UnavailableError(
        absl::StrCat("lost the connection to the worker at ",
                     options_.worker_endpoint, ": ", status.message()));
    SetStatusServer(status, Server::kWorker);
    return status;
  }
  return Explain(std::move(status), Server::kWorker, timeout);
}

}  // namespace ratequant::client
