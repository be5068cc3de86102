#include "clients/cli/doctor_checks.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "clients/cli/certificate.h"
#include "clients/cli/error_report.h"
#include "clients/cpp/disk_copy.h"
#include "clients/cpp/durable_file.h"
#include "clients/cpp/grpc_connection.h"
#include "clients/cpp/health.h"
#include "clients/cpp/loaded_bit_map.h"
#include "clients/cpp/resource_names.h"
#include "clients/cpp/status.h"
#include "ratequant/kv/kv_cache.h"

namespace ratequant::cli {
namespace {

using State = Finding::State;

// How far clocks may be apart: the order of calibrations and of kept maps, and
// certificates, go by them.
constexpr absl::Duration kMostSkew = absl::Seconds(2);

// Time to renew a certificate.
constexpr absl::Duration kExpiresSoon = absl::Hours(24 * 30);

constexpr size_t kMaxCertificateBytes = 1 << 20;

// A server that takes longer isn't well.
constexpr absl::Duration kLongestHealthCheck = absl::Seconds(5);

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

Finding CheckCertificate(const std::string& check,
                         const Certificate& certificate, absl::Time now) {
  const auto day = [](absl::Time time) {
    return absl::FormatTime("%Y-%m-%d", time, absl::UTCTimeZone());
  };
  Finding finding = {.check = check};
  finding.detail =
      absl::StrCat(certificate.subject, ", valid from ",
                   day(certificate.begins), " to ", day(certificate.expires));
  const bool wrong = now < certificate.begins || now >= certificate.expires;
  if (wrong) finding.state = State::kFailed;
  if (!wrong && certificate.expires - now < kExpiresSoon) {
    finding.state = State::kWarning;
  }
  if (finding.state != State::kOk) {
    finding.next = now < certificate.begins
                       ? "wait, or set this machine's clock right"
                       : "renew it";
  }
  return finding;
}

// Each certificate of a PEM text, or why there is none.
std::vector<Finding> CheckPem(const std::string& check,
                              const absl::StatusOr<std::string>& pem,
                              absl::Time now) {
  absl::Status status = pem.status();
  std::vector<Finding> findings;
  if (pem.ok()) {
    const auto certificates = ParseCertificates(*pem);
    status = certificates.status();
    if (certificates.ok()) {
      for (const Certificate& certificate : *certificates) {
        findings.push_back(CheckCertificate(check, certificate, now));
      }
    }
  }
  if (!status.ok()) {
    findings.push_back({.check = check,
                        .state = State::kFailed,
                        .detail = Message(status),
                        .next = "name a file with certificates in PEM"});
  }
  return findings;
}

// What to do about a status, in one line.
std::string Next(const absl::Status& status,
                 const client::ConnectionOptions& connection) {
  return absl::StrJoin(
      NextSteps(status, {.allocator_endpoint = connection.allocator_endpoint,
                         .worker_endpoint = connection.worker_endpoint}),
      "; ");
}

// The server's health and, with TLS, the certificate it shows.
std::vector<Finding> CheckServer(client::Server server,
                                 const client::ConnectionOptions& connection,
                                 const std::string& endpoint, State when_away) {
  const std::string name(client::ServerName(server));
  const absl::Time start = absl::Now();
  absl::Status health;
  std::string certificate;
  const auto channel = client::MakeChannel(connection, endpoint, &health);
  if (health.ok()) {
    health = client::CheckHealth(
        channel, start + std::min(connection.timeout, kLongestHealthCheck),
        &certificate);
  }
  Finding finding = {.check = absl::StrCat(name, " at ", endpoint)};
  if (health.ok()) {
    finding.detail = absl::StrFormat(
        "SERVING, %.1f ms", absl::ToDoubleMilliseconds(absl::Now() - start));
  } else {
    client::SetStatusServer(health, server);
    finding.state = when_away;
    finding.detail = Message(health);
    finding.next = Next(health, connection);
  }
  std::vector<Finding> findings = {finding};
  if (!certificate.empty()) {
    AddFindings(
        CheckPem(absl::StrCat("certificate of the ", name), certificate, start),
        &findings);
  }
  return findings;
}

Finding CheckClock(const v1::Statistics& statistics, absl::Time before,
                   absl::Time after) {
  const absl::Time theirs = absl::FromUnixSeconds(statistics.time().seconds()) +
                            absl::Nanoseconds(statistics.time().nanos());
  // It was read somewhere between.
  const absl::Duration skew = theirs < before  ? theirs - before
                              : theirs > after ? theirs - after
                                               : absl::ZeroDuration();
  const auto text = [](absl::Duration d) {
    return absl::FormatDuration(
        absl::Ceil(absl::AbsDuration(d), absl::Milliseconds(1)));
  };
  Finding finding = {.check = "clocks"};
  finding.detail =
      skew == absl::ZeroDuration()
          ? absl::StrCat("the allocator's agrees, to within ",
                         text(after - before))
          : absl::StrCat("the allocator's is ", text(skew),
                         skew < absl::ZeroDuration() ? " behind" : " ahead");
  if (absl::AbsDuration(skew) > kMostSkew) {
    finding.state = State::kWarning;
    finding.next = "synchronize both machines' clocks, for example with NTP";
  }
  return finding;
}

Finding CheckMapFile(const std::string& path, absl::Time now) {
  Finding finding = {
      .check = absl::StrCat("kept map ",
                            std::filesystem::path(path).filename().string())};
  auto file = client::LoadBitMapFile(path);
  absl::Status status = file.status();
  if (file.ok()) {
    const auto loaded = client::LoadBitMap(file->saved.answer);
    status = loaded.status();
  }
  if (!status.ok()) {
    finding.state = State::kFailed;
    finding.detail = Message(status);
    finding.next = "delete it: engines don't use it, and keep another one";
    return finding;
  }
  const v1::BitMap& map = file->saved.answer.bit_map();
  finding.detail =
      absl::StrFormat("%s, %.4g effective bits, received %s ago",
                      client::ModelIdOf(map.name()), map.effective_bits(),
                      absl::FormatDuration(absl::Trunc(
                          now - file->saved.received, absl::Seconds(1))));
  return finding;
}

}  // namespace

void AddFindings(std::vector<Finding> more, std::vector<Finding>* all) {
  std::move(more.begin(), more.end(), std::back_inserter(*all));
}

std::vector<Finding> CheckServers(const client::ConnectionOptions& connection) {
  std::vector<Finding> findings =
      CheckServer(client::Server::kAllocator, connection,
                  connection.allocator_endpoint, State::kFailed);
  AddFindings(CheckServer(client::Server::kWorker, connection,
                          connection.worker_endpoint, State::kWarning),
              &findings);
  return findings;
}

std::vector<Finding> CheckAllocator(client::Client& client) {
  const absl::Time before = absl::Now();
  const auto statistics = client.GetStatistics();
  const absl::Time after = absl::Now();
  Finding version = {.check = "versions"};
  if (!statistics.ok()) {
    version.state = State::kFailed;
    version.detail = Message(statistics.status());
    version.next = absl::StrJoin(NextSteps(statistics.status(), {}), "; ");
    return {version};
  }
  if (!statistics->has_time()) {
    version.state = State::kWarning;
    version.detail = absl::StrCat("this is ", RATEQUANT_VERSION,
                                  "; the allocator is older and doesn't say");
    version.next = "use the same version of both";
    return {version};
  }
  version.detail = absl::StrCat("this is ", RATEQUANT_VERSION,
                                ", the allocator ", statistics->version());
  if (statistics->version() != RATEQUANT_VERSION) {
    version.state = State::kWarning;
    version.next = "use the same version of both";
  }
  return {version, CheckClock(*statistics, before, after)};
}

Finding CheckGpu() {
  Finding finding = {.check = "GPU"};
  kv::KvCacheConfig smallest;
  smallest.geometry = {.layers = 1, .kv_heads = 1, .head_dim = 64};
  smallest.groups = {{.quantizer = {}, .width = 4},
                     {.quantizer = {}, .width = 4}};
  const auto cache =
      kv::KvCache::Create(smallest, {.device = {.kind = kv::DeviceKind::kCuda},
                                     .num_pages = 1,
                                     .max_sequences = 1});
  if (cache.ok()) {
    finding.detail = "the runtime can keep caches on it";
  } else {
    finding.state = State::kWarning;
    finding.detail = Message(cache.status());
    finding.next =
        "caches stay in main memory; for a GPU: its driver, and a runtime "
        "built with RATEQUANT_CUDA=ON";
  }
  return finding;
}

std::vector<Finding> CheckMapFolder(const std::string& folder) {
  std::vector<std::string> files;
  std::error_code error;
  for (std::filesystem::directory_iterator file(folder, error), end;
       !error && file != end; file.increment(error)) {
    const std::string path = file->path().string();
    if (absl::EndsWith(path, ".bitmap")) files.push_back(path);
  }
  Finding summary = {.check = absl::StrCat("map folder ", folder)};
  if (error) {
    summary.state = State::kFailed;
    summary.detail = error.message();
    return {summary};
  }
  std::sort(files.begin(), files.end());
  summary.detail = absl::StrCat(files.size(), " kept");
  if (files.empty()) {
    summary.state = State::kWarning;
    summary.next = "engines that start with this folder fill it";
  }
  std::vector<Finding> findings = {summary};
  for (const std::string& path : files) {
    findings.push_back(CheckMapFile(path, absl::Now()));
  }
  return findings;
}

std::vector<Finding> CheckCertificates(const std::string& file,
                                       absl::Time now) {
  return CheckPem(absl::StrCat("certificate ", file),
                  client::ReadFile(file, kMaxCertificateBytes), now);
}

}  // namespace ratequant::cli
