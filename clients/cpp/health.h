#ifndef RATEQUANT_CLIENTS_CPP_HEALTH_H_
#define RATEQUANT_CLIENTS_CPP_HEALTH_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"

namespace ratequant::client {

// Asks a server for its health as a whole (grpc.health.v1). OK when it is
// SERVING; FAILED_PRECONDITION when it answers anything else; otherwise why
// there was no answer before `deadline`. `certificate`, unless null, gets the
// certificate the server showed, in PEM; "" without TLS, or without an answer.
absl::Status CheckHealth(const std::shared_ptr<grpc::Channel>& channel,
                         absl::Time deadline,
                         std::string* certificate = nullptr);

}  // namespace ratequant::client

#endif  // RATEQUANT_CLIENTS_CPP_HEALTH_H_
