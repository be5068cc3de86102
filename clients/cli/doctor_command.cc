#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/cli/commands.h"
#include "clients/cli/doctor_checks.h"
#include "clients/cli/help.h"
#include "clients/cli/table.h"
#include "nlohmann/json.hpp"

namespace ratequant::cli {
namespace {

struct DoctorFlags {
  std::string map_folder;
  std::vector<std::string> certificates;
};

const char* StateName(Finding::State state) {
  switch (state) {
    case Finding::State::kOk:
      return "ok";
    case Finding::State::kWarning:
      return "warning";
    case Finding::State::kFailed:
      return "FAILED";
  }
  return "";
}

// The TLS files that calls use, and those to look at besides.
std::vector<std::string> CertificateFiles(const DoctorFlags& flags,
                                          const client::TlsOptions& tls) {
  std::vector<std::string> files = {tls.ca, tls.certificate};
  files.insert(files.end(), flags.certificates.begin(),
               flags.certificates.end());
  std::erase(files, "");
  return files;
}

std::vector<Finding> Examine(const DoctorFlags& flags, Session& session) {
  std::vector<Finding> findings = CheckServers(session.connection);
  // There is no use in asking one that isn't there for more.
  if (findings[0].state == Finding::State::kOk) {
    AddFindings(CheckAllocator(session.client()), &findings);
  }
  findings.push_back(CheckGpu());
  if (!flags.map_folder.empty()) {
    AddFindings(CheckMapFolder(flags.map_folder), &findings);
  }
  for (const std::string& file :
       CertificateFiles(flags, session.connection.tls)) {
    AddFindings(CheckCertificates(file, absl::Now()), &findings);
  }
  return findings;
}

std::string FindingsText(const std::vector<Finding>& findings,
                         const TextStyle& style) {
  Table table({{"CHECK"}, {"STATE"}, {"DETAIL"}});
  for (const Finding& finding : findings) {
    table.AddRow({finding.check, StateName(finding.state), finding.detail});
    if (!finding.next.empty()) table.AddRow({"", "", "next: " + finding.next});
  }
  return table.Render(style);
}

std::string FindingsJson(const std::vector<Finding>& findings) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const Finding& finding : findings) {
    json.push_back({{"check", finding.check},
                    {"state", StateName(finding.state)},
                    {"detail", finding.detail},
                    {"next", finding.next}});
  }
  // Messages of other programs may be in any encoding.
  return absl::StrCat(
      json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace), "\n");
}

absl::Status Doctor(const DoctorFlags& flags, Session& session) {
  const std::vector<Finding> findings = Examine(flags, session);
  if (session.json) {
    const absl::Status printed = session.PrintJson(FindingsJson(findings));
    if (!printed.ok()) return printed;
  } else {
    session.Print(FindingsText(findings, session.terminal().out_style));
  }
  const auto failed = std::count_if(
      findings.begin(), findings.end(), [](const Finding& finding) {
        return finding.state == Finding::State::kFailed;
      });
  if (failed == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(failed, " of ", findings.size(), " checks failed"));
}

}  // namespace

void AddDoctorCommand(CLI::App& app, Session& session) {
  CLI::App* verb = app.add_subcommand(
      "doctor", "Looks for what may be wrong: servers, clocks, files, GPU");
  auto flags = std::make_shared<DoctorFlags>();
  verb->add_option("--map-folder", flags->map_folder,
                   "Folder where engines on this machine keep bit maps: checks "
                   "every one")
      ->option_text("DIR");
  verb->add_option("--certificate", flags->certificates,
                   "PEM file: says when its certificates expire, as it does of "
                   "--tls-ca, --tls-cert and the servers'; may be repeated")
      ->option_text("FILE");
  SetHelp(*verb,
          {.details = "Fails when something doesn't work; warnings are about "
                      "what isn't needed for everything, or\nwill be wrong one "
                      "day.",
           .examples = {"ratequant doctor",
                        "ratequant doctor --map-folder /var/lib/engine/maps "
                        "--output json",
                        "ratequant doctor --certificate ca.pem --certificate "
                        "client.pem"}});
  verb->callback([flags, &session] {
    session.command = [flags, &session] { return Doctor(*flags, session); };
  });
}

}  // namespace ratequant::cli
