#ifndef RATEQUANT_CLIENTS_CLI_DOCTOR_CHECKS_H_
#define RATEQUANT_CLIENTS_CLI_DOCTOR_CHECKS_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "clients/cpp/client.h"
#include "clients/cpp/connection.h"

namespace ratequant::cli {

// What one look found.
struct Finding {
  // kWarning: something works less well than it could, or will fail one day.
  enum class State { kOk, kWarning, kFailed };

  std::string check;  // what was looked at
  State state = State::kOk;
  std::string detail = {};
  std::string next = {};  // what to do about it, when there is something
};

// Moves `more` to the end of `all`.
void AddFindings(std::vector<Finding> more, std::vector<Finding>* all);

// Whether the allocator, the first, and the worker, which only calibration
// needs, are there and SERVING; with TLS also when their certificates expire.
std::vector<Finding> CheckServers(const client::ConnectionOptions& connection);

// The allocator's version against this one's, and its clock against this
// machine's.
std::vector<Finding> CheckAllocator(client::Client& client);

// Whether the runtime has a GPU to keep caches on.
Finding CheckGpu();

// Every bit map kept in a folder (BitMapSourceOptions::folder).
std::vector<Finding> CheckMapFolder(const std::string& folder);

// When the certificates of a PEM file expire.
std::vector<Finding> CheckCertificates(const std::string& file, absl::Time now);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_DOCTOR_CHECKS_H_
