#include "clients/cli/exit_code.h"

#include "absl/strings/cord.h"
#include "clients/cpp/status.h"

namespace ratequant::cli {
namespace {

constexpr char kUsageUrl[] = "ratequant.cli/usage";

}  // namespace

absl::Status UsageError(absl::string_view message) {
  absl::Status status = absl::InvalidArgumentError(message);
  status.SetPayload(kUsageUrl, absl::Cord());
  return status;
}

bool IsUsageError(const absl::Status& status) {
  return status.GetPayload(kUsageUrl).has_value();
}

int ExitCodeOf(const absl::Status& status) {
  if (status.ok()) return kExitOk;
  if (IsUsageError(status)) return kExitUsage;
  if (absl::IsNotFound(status)) return kExitNotFound;
  if (client::IsUnreachable(status)) return kExitUnreachable;
  // A server's CANCELLED is its failure; ours is the user's wish.
  bool ours = client::StatusServer(status) == client::Server::kUnknown;
  if (absl::IsCancelled(status) && ours) return kExitInterrupted;
  return kExitFailed;
}

}  // namespace ratequant::cli
