#include "clients/cpp/grpc_connection.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/support/channel_arguments.h"

namespace ratequant::client {
namespace {

// A calibration's tables take about 25 bytes for each group, width and
// quantizer; 64 MiB holds far more than the largest model.
constexpr int kMaxMessageBytes = 64 << 20;

std::vector<std::string> AllocatorEndpoints(const ConnectionOptions& options) {
  std::vector<std::string> endpoints = {options.allocator_endpoint};
  endpoints.insert(endpoints.end(), options.allocator_replicas.begin(),
                   options.allocator_replicas.end());
  return endpoints;
}

// The same environment, but Cancel ends a sleep.
Environment Interruptible(const Environment& environment,
                          Cancellation* cancellation) {
  Environment result = environment;
  if (cancellation != nullptr) {
    result.sleep = [&environment, cancellation](absl::Duration d) {
      environment.wait(cancellation->notification(), d);
    };
  }
  return result;
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

// A server that stops resets the calls it hasn't begun, which reaches its
// client as CANCELLED. Nobody here cancelled it: it may be made again like one
// that found no server.
absl::Status Finished(const grpc::Status& status, Cancellation* cancellation) {
  const bool ours = cancellation != nullptr && cancellation->cancelled();
  if (status.error_code() != grpc::StatusCode::CANCELLED || ours) {
    return FromGrpcStatus(status);
  }
  return absl::UnavailableError(
      absl::StrCat("the server ended the call: ", status.error_message()));
}

}  // namespace

std::shared_ptr<grpc::Channel> MakeChannel(const ConnectionOptions& options,
                                           const std::string& endpoint,
                                           absl::Status* callable) {
  auto credentials = options.credentials;
  if (credentials == nullptr) {
    auto made = MakeCredentials(options.tls, endpoint, options.insecure);
    *callable = made.status();
    credentials =
        made.ok() ? *std::move(made) : grpc::InsecureChannelCredentials();
  }
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
  return grpc::CreateCustomChannel(endpoint, credentials, arguments);
}

Stubs MakeStubs(const ConnectionOptions& options) {
  Stubs stubs;
  for (const std::string& endpoint : AllocatorEndpoints(options)) {
    absl::Status callable;
    auto channel = MakeChannel(options, endpoint, &callable);
    stubs.allocators.push_back(
        {.registry = v1::RegistryService::NewStub(channel),
         .allocation = v1::AllocationService::NewStub(channel),
         .admin = v1::AdminService::NewStub(channel),
         .callable = callable});
  }
  stubs.calibration = v1::CalibrationService::NewStub(
      MakeChannel(options, options.worker_endpoint, &stubs.worker_callable));
  return stubs;
}

GrpcConnection::GrpcConnection(ConnectionOptions options, Stubs stubs,
                               Environment environment)
    : options_(std::move(options)),
      stubs_(std::move(stubs)),
      environment_(std::move(environment)) {}

absl::Status GrpcConnection::Prepare(const absl::Status& callable,
                                     grpc::ClientContext* context) const {
  if (!callable.ok()) return callable;
  return AddToken(options_.token_file, context);
}

absl::Status GrpcConnection::Explain(absl::Status status, Server server,
                                     absl::Duration timeout) const {
  if (status.ok()) return status;
  if (IsUnreachable(status)) {
    std::string where =
        absl::StrCat(ServerName(server), " at ",
                     server == Server::kWorker
                         ? options_.worker_endpoint
                         : absl::StrJoin(AllocatorEndpoints(options_), ", "));
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

absl::StatusOr<int> GrpcConnection::AnswerRead(absl::Time deadline,
                                               Cancellation* cancellation,
                                               const ReplicaCall& call) {
  int answered = preferred_.load(std::memory_order_relaxed);
  const absl::Status status = RetryTransient(
      options_.retry, Interruptible(environment_, cancellation), deadline, [&] {
        const absl::StatusOr<int> first =
            FirstAnswer(replicas(), answered, options_.hedge_delay,
                        environment_, cancellation, call);
        if (first.ok()) answered = *first;
        return first.status();
      });
  if (!status.ok()) return status;
  preferred_.store(answered, std::memory_order_relaxed);
  return answered;
}

absl::StatusOr<int> GrpcConnection::Answer(Repeat repeat, absl::Time deadline,
                                           Cancellation* cancellation,
                                           const ReplicaCall& call) {
  if (repeat == Repeat::kHedged && replicas() > 1) {
    return AnswerRead(deadline, cancellation, call);
  }
  int replica = repeat == Repeat::kNever || repeat == Repeat::kSameServer
                    ? 0
                    : preferred_.load(std::memory_order_relaxed);
  const auto attempt = [&] {
    grpc::ClientContext context;
    Cancellation::Scope scope(cancellation, &context);
    return call(replica, &context);
  };
  absl::Status status;
  if (repeat == Repeat::kNever) {
    status = attempt();
  } else {
    status = RetryTransient(
        options_.retry, Interruptible(environment_, cancellation), deadline,
        [&] {
          absl::Status tried = attempt();
          if (!tried.ok() && repeat != Repeat::kSameServer) {
            replica = (replica + 1) % replicas();
          }
          return tried;
        });
  }
  if (!status.ok()) return status;
  return replica;
}

template <typename Service, typename Request, typename Response>
absl::StatusOr<Response> GrpcConnection::Call(
    Repeat repeat, std::unique_ptr<Service> AllocatorStubs::*service,
    grpc::Status (Service::*method)(grpc::ClientContext*, const Request&,
                                    Response*),
    const Request& request, Cancellation* cancellation) {
  const absl::Time deadline = environment_.now() + options_.timeout;
  std::vector<Response> responses(replicas());
  absl::StatusOr<int> answered = Answer(
      repeat, deadline, cancellation,
      [&](int replica, grpc::ClientContext* context) {
        context->set_deadline(absl::ToChronoTime(deadline));
        absl::Status prepared =
            Prepare(stubs_.allocators[replica].callable, context);
        if (!prepared.ok()) return prepared;
        Service& stub = *(stubs_.allocators[replica].*service);
        return Finished((stub.*method)(context, request, &responses[replica]),
                        cancellation);
      });
  if (answered.ok()) return std::move(responses[*answered]);
  if (cancellation != nullptr && cancellation->cancelled()) {
    return absl::CancelledError("the call was cancelled");
  }
  return Explain(answered.status(), Server::kAllocator, options_.timeout);
}

absl::StatusOr<v1::Calibration> GrpcConnection::CreateCalibration(
    const v1::CreateCalibrationRequest& request) {
  return Call(Repeat::kNextServer, &AllocatorStubs::registry,
              &v1::RegistryService::StubInterface::CreateCalibration, request);
}

absl::StatusOr<v1::Calibration> GrpcConnection::GetCalibration(
    const v1::GetCalibrationRequest& request) {
  return Call(Repeat::kHedged, &AllocatorStubs::registry,
              &v1::RegistryService::StubInterface::GetCalibration, request);
}

absl::StatusOr<v1::ListCalibrationsResponse> GrpcConnection::ListCalibrations(
    const v1::ListCalibrationsRequest& request) {
  return Call(Repeat::kHedged, &AllocatorStubs::registry,
              &v1::RegistryService::StubInterface::ListCalibrations, request);
}

absl::Status GrpcConnection::DeleteCalibration(
    const v1::DeleteCalibrationRequest& request) {
  return Call(Repeat::kNever, &AllocatorStubs::registry,
              &v1::RegistryService::StubInterface::DeleteCalibration, request)
      .status();
}

absl::StatusOr<v1::Model> GrpcConnection::GetModel(
    const v1::GetModelRequest& request) {
  return Call(Repeat::kHedged, &AllocatorStubs::registry,
              &v1::RegistryService::StubInterface::GetModel, request);
}

absl::StatusOr<v1::ListModelsResponse> GrpcConnection::ListModels(
    const v1::ListModelsRequest& request) {
  return Call(Repeat::kHedged, &AllocatorStubs::registry,
              &v1::RegistryService::StubInterface::ListModels, request);
}

absl::StatusOr<v1::NamedPolicy> GrpcConnection::CreatePolicy(
    const v1::CreatePolicyRequest& request) {
  return Call(Repeat::kNextServer, &AllocatorStubs::registry,
              &v1::RegistryService::StubInterface::CreatePolicy, request);
}

absl::StatusOr<v1::NamedPolicy> GrpcConnection::GetPolicy(
    const v1::GetPolicyRequest& request) {
  return Call(Repeat::kHedged, &AllocatorStubs::registry,
              &v1::RegistryService::StubInterface::GetPolicy, request);
}

absl::StatusOr<v1::ListPoliciesResponse> GrpcConnection::ListPolicies(
    const v1::ListPoliciesRequest& request) {
  return Call(Repeat::kHedged, &AllocatorStubs::registry,
              &v1::RegistryService::StubInterface::ListPolicies, request);
}

absl::Status GrpcConnection::DeletePolicy(
    const v1::DeletePolicyRequest& request) {
  return Call(Repeat::kNever, &AllocatorStubs::registry,
              &v1::RegistryService::StubInterface::DeletePolicy, request)
      .status();
}

absl::StatusOr<v1::GetBitMapResponse> GrpcConnection::GetBitMap(
    const v1::GetBitMapRequest& request, Cancellation* cancellation) {
  return Call(Repeat::kHedged, &AllocatorStubs::allocation,
              &v1::AllocationService::StubInterface::GetBitMap, request,
              cancellation);
}

absl::StatusOr<v1::RateDistortionCurve> GrpcConnection::GetRateDistortionCurve(
    const v1::GetRateDistortionCurveRequest& request) {
  return Call(Repeat::kHedged, &AllocatorStubs::allocation,
              &v1::AllocationService::StubInterface::GetRateDistortionCurve,
              request);
}

absl::StatusOr<v1::Evaluation> GrpcConnection::RecordEvaluation(
    const v1::RecordEvaluationRequest& request) {
  return Call(Repeat::kNextServer, &AllocatorStubs::allocation,
              &v1::AllocationService::StubInterface::RecordEvaluation, request);
}

absl::StatusOr<v1::ListEvaluationsResponse> GrpcConnection::ListEvaluations(
    const v1::ListEvaluationsRequest& request) {
  return Call(Repeat::kHedged, &AllocatorStubs::registry,
              &v1::RegistryService::StubInterface::ListEvaluations, request);
}

absl::Status GrpcConnection::DeleteEvaluation(
    const v1::DeleteEvaluationRequest& request) {
  return Call(Repeat::kNever, &AllocatorStubs::registry,
              &v1::RegistryService::StubInterface::DeleteEvaluation, request)
      .status();
}

absl::StatusOr<v1::Backup> GrpcConnection::CreateBackup(
    const v1::CreateBackupRequest& request) {
  return Call(Repeat::kNever, &AllocatorStubs::admin,
              &v1::AdminService::StubInterface::CreateBackup, request);
}

absl::StatusOr<v1::Statistics> GrpcConnection::GetStatistics(
    const v1::GetStatisticsRequest& request) {
  return Call(Repeat::kSameServer, &AllocatorStubs::admin,
              &v1::AdminService::StubInterface::GetStatistics, request);
}

absl::Status GrpcConnection::WatchOnce(
    int replica, v1::GetBitMapRequest* request, bool resumed, bool* heard,
    const std::function<void(const v1::GetBitMapResponse&)>& on_answer,
    Cancellation* cancellation) {
  grpc::ClientContext context;
  absl::Status prepared =
      Prepare(stubs_.allocators[replica].callable, &context);
  if (!prepared.ok()) return prepared;
  Cancellation::Scope scope(cancellation, &context);
  const auto reader =
      stubs_.allocators[replica].allocation->WatchBitMap(&context, *request);
  v1::GetBitMapResponse answer;
  while (reader->Read(&answer)) {
    *heard = true;
    request->set_known_etag(answer.etag());
    if (!resumed || !answer.unchanged()) on_answer(answer);
  }
  return Finished(reader->Finish(), cancellation);
}

absl::Status GrpcConnection::WatchBitMap(
    v1::GetBitMapRequest request,
    const std::function<void(const v1::GetBitMapResponse&)>& on_answer,
    Cancellation* cancellation) {
  const auto cancelled = [cancellation] {
    return cancellation != nullptr && cancellation->cancelled();
  };
  int replica = preferred_.load(std::memory_order_relaxed);
  bool resumed = false, again = true;
  absl::Status status;
  while (again) {
    again = false;
    status = RetryTransient(
        options_.retry, Interruptible(environment_, cancellation),
        absl::InfiniteFuture(), [&] {
          bool heard = false;
          absl::Status ended = cancelled()
                                   ? absl::CancelledError()
                                   : WatchOnce(replica, &request, resumed,
                                               &heard, on_answer, cancellation);
          replica = (replica + 1) % replicas();
          resumed = true;
          // Only failures in a row count.
          again = heard && IsTransient(ended);
          return again ? absl::OkStatus() : ended;
        });
  }
  if (cancelled()) return absl::CancelledError("the watch was cancelled");
  return Explain(std::move(status), Server::kAllocator,
                 absl::InfiniteDuration());
}

absl::StatusOr<v1::CalibrateProgress> GrpcConnection::CalibrateModel(
    const v1::CalibrateModelRequest& request,
    const std::function<void(const v1::CalibrateProgress&)>& on_progress,
    Cancellation* cancellation) {
  absl::Duration timeout =
      options_.calibrate_timeout.value_or(absl::InfiniteDuration());
  grpc::ClientContext context;
  if (options_.calibrate_timeout.has_value()) {
    context.set_deadline(absl::ToChronoTime(environment_.now() + timeout));
  }
  absl::Status prepared = Prepare(stubs_.worker_callable, &context);
  if (!prepared.ok()) return prepared;
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
