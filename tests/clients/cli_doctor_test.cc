// `ratequant doctor`: what it finds with a real ratequant-allocator, with none,
// in a folder of kept maps, and in certificates.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/cli/doctor_checks.h"
#include "clients/cpp/disk_copy.h"
#include "nlohmann/json.hpp"
#include "tests/clients/process.h"
#include "tests/clients/sample_bit_map.h"
#include "tests/services/allocation/allocator_process.h"
#include "tests/services/allocation/temp_dir.h"

namespace ratequant::testing {
namespace {

using cli::CheckCertificates;
using cli::Finding;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;

// Valid for ten years from 2026-11-24 on.
constexpr char kCertificate[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBoDCCAUegAwIBAgIUERhgHbu+/oiERKV6q2Iw6lQi73swCgYIKoZIzj0EAwIw\n"
    "JjEQMA4GA1UECgwHRXhhbXBsZTESMBAGA1UEAwwJYWxsb2NhdG9yMB4XDTI2MTEy\n"
    "NDE1NTMyM1oXDTM2MTEyMTE1NTMyM1owJjEQMA4GA1UECgwHRXhhbXBsZTESMBAG\n"
    "A1UEAwwJYWxsb2NhdG9yMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE4ALR2hb7\n"
    "IwKxf7vNkCd58Jg5fa2f7i4oFRG9V5xcwb1eOKFMrkaa8dDQuRCeWtbBnKkUCji3\n"
    "QfrWibPX4Z4fV6NTMFEwHQYDVR0OBBYEFF2T7KAXJe2u1Izgi8k/XIP8TxhvMB8G\n"
    "A1UdIwQYMBaAFF2T7KAXJe2u1Izgi8k/XIP8TxhvMA8GA1UdEwEB/wQFMAMBAf8w\n"
    "CgYIKoZIzj0EAwIDRwAwRAIgQ9NnfbGES4TBPlib7HQcIFd3b7PnhySglHRdWWlq\n"
    "JLcCIBP0Bhlw+nRiwiBcUKTzXkExNTyDQRTr8z+A45bzcMsS\n"
    "-----END CERTIFICATE-----\n";

absl::Time Day(const char* day) {
  absl::Time time;
  std::string error;
  EXPECT_TRUE(absl::ParseTime("%Y-%m-%d", day, &time, &error)) << error;
  return time;
}

class DoctorTest : public ::testing::Test {
 protected:
  // Findings by what was checked.
  static nlohmann::json Findings(const ProcessResult& result) {
    nlohmann::json findings;
    for (const auto& finding : nlohmann::json::parse(result.out)) {
      findings[finding["check"].get<std::string>()] = finding;
    }
    return findings;
  }

  const TempDir folder_;
};

TEST_F(DoctorTest, FindsTheAllocatorItsVersionAndItsClock) {
  AllocatorProcess allocator(
      {"--data-dir", folder_.File("data"), "--address", "127.0.0.1:0",
       "--port-file", folder_.File("port")},
      folder_.File("log"));
  const std::string endpoint = allocator.WaitForAddress(folder_.File("port"));
  ASSERT_NE(endpoint, "") << allocator.Log();
  const ProcessResult result =
      RunRateQuant({"doctor", "--endpoint", endpoint, "--worker-endpoint",
                    "127.0.0.1:9", "--json"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  nlohmann::json findings = Findings(result);
  const auto serving = findings[absl::StrCat("allocator at ", endpoint)];
  EXPECT_EQ(serving["state"], "ok");
  EXPECT_THAT(serving["detail"].get<std::string>(), StartsWith("SERVING"));
  // The worker is only needed to calibrate.
  EXPECT_EQ(findings["worker at 127.0.0.1:9"]["state"], "warning");
  EXPECT_EQ(findings["versions"]["state"], "ok");
  EXPECT_THAT(findings["clocks"]["detail"].get<std::string>(),
              StartsWith("the allocator's "));
  EXPECT_TRUE(findings.contains("GPU"));
}

// Makes certificate.pem, signed by itself for two days, and key.pem.
void MakeCertificate(const TempDir& folder) {
  const ProcessResult made =
      Process({"/usr/bin/openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
               "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
               "/O=Example/CN=allocator", "-addext",
               "subjectAltName=IP:127.0.0.1", "-keyout", folder.File("key.pem"),
               "-out", folder.File("certificate.pem")})
          .Wait();
  ASSERT_EQ(made.exit_code, 0) << made.err;
}

TEST_F(DoctorTest, SaysWhenTheCertificateOfARunningAllocatorExpires) {
  if (!std::filesystem::exists("/usr/bin/openssl"))
    GTEST_SKIP() << "no openssl";
  MakeCertificate(folder_);
  const std::string certificate = folder_.File("certificate.pem");
  AllocatorProcess allocator(
      {"--data-dir", folder_.File("data"), "--address", "127.0.0.1:0",
       "--port-file", folder_.File("port"), "--tls-cert", certificate,
       "--tls-key", folder_.File("key.pem")},
      folder_.File("log"));
  const std::string endpoint = allocator.WaitForAddress(folder_.File("port"));
  ASSERT_NE(endpoint, "") << allocator.Log();
  const auto doctor = [&](const std::string& ca) {
    return RunRateQuant({"doctor", "--endpoint", endpoint, "--worker-endpoint",
                         "127.0.0.1:9", "--tls-ca", ca, "--json"});
  };
  const ProcessResult trusting = doctor(certificate);
  EXPECT_EQ(trusting.exit_code, 0) << trusting.err;
  nlohmann::json findings = Findings(trusting);
  for (const std::string& check : {std::string("certificate of the allocator"),
                                   absl::StrCat("certificate ", certificate)}) {
    EXPECT_EQ(findings[check]["state"], "warning") << findings.dump(2);
    EXPECT_THAT(findings[check]["detail"].get<std::string>(),
                StartsWith("CN=allocator,O=Example, valid from "));
    EXPECT_EQ(findings[check]["next"], "renew it");
  }
  const std::string other = folder_.File("other.pem");
  std::ofstream(other) << kCertificate;
  const ProcessResult refusing = doctor(other);
  EXPECT_EQ(refusing.exit_code, 1);
  const auto refused = Findings(refusing)["allocator at " + endpoint];
  EXPECT_EQ(refused["state"], "FAILED");
  EXPECT_THAT(refused["next"].get<std::string>(),
              StartsWith("its certificate has expired, is for another name, or "
                         "isn't from a CA in --tls-ca"));
}

TEST_F(DoctorTest, AnAllocatorThatIsAwayFailsAndSaysWhatToDo) {
  const ProcessResult result =
      RunRateQuant({"doctor", "--endpoint", "127.0.0.1:9", "--worker-endpoint",
                    "127.0.0.1:9"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, HasSubstr("allocator at 127.0.0.1:9  FAILED"));
  EXPECT_THAT(result.out, HasSubstr("next: start it:  ratequant-allocator"));
  EXPECT_THAT(result.err, HasSubstr("1 of 3 checks failed"));
}

TEST_F(DoctorTest, ReadsEveryKeptMap) {
  const client::DiskCopy good(folder_.File("maps"), SampleQuery());
  ASSERT_TRUE(good.Store({SampleAnswer(4), absl::Now()}).ok());
  std::ofstream(folder_.File("maps/damaged.bitmap")) << "damaged";
  const std::vector<Finding> findings =
      cli::CheckMapFolder(folder_.File("maps"));
  ASSERT_THAT(findings, SizeIs(3));
  EXPECT_EQ(findings[0].detail, "2 kept");
  EXPECT_EQ(findings[1].check, "kept map damaged.bitmap");
  EXPECT_EQ(findings[1].state, Finding::State::kFailed);
  EXPECT_THAT(findings[1].detail, HasSubstr("isn't a saved bit map"));
  EXPECT_EQ(findings[2].state, Finding::State::kOk);
  EXPECT_THAT(findings[2].detail, StartsWith("m, "));
  EXPECT_EQ(cli::CheckMapFolder(folder_.File("none"))[0].state,
            Finding::State::kFailed);
}

TEST_F(DoctorTest, SaysWhenCertificatesExpire) {
  const std::string file = folder_.File("certificate.pem");
  std::ofstream(file) << kCertificate << kCertificate;
  const auto state = [&](const char* day) {
    return CheckCertificates(file, Day(day))[0].state;
  };
  const auto now = CheckCertificates(file, Day("2030-01-01"));
  ASSERT_THAT(now, SizeIs(2));  // the file is a chain
  EXPECT_EQ(now[0].state, Finding::State::kOk);
  EXPECT_EQ(now[0].detail,
            "CN=allocator,O=Example, valid from 2026-11-24 to 2036-11-21");
  EXPECT_EQ(state("2026-11-01"), Finding::State::kFailed);  // not yet
  EXPECT_EQ(state("2036-11-01"), Finding::State::kWarning);
  EXPECT_EQ(state("2036-11-22"), Finding::State::kFailed);
}

TEST_F(DoctorTest, WhatIsNoCertificateIsNamed) {
  const std::string file = folder_.File("certificate.pem");
  const auto detail = [&] {
    const auto findings = CheckCertificates(file, absl::Now());
    EXPECT_THAT(findings, SizeIs(1));
    EXPECT_EQ(findings[0].state, Finding::State::kFailed);
    return findings[0].detail;
  };
  EXPECT_THAT(detail(), HasSubstr("No such file"));
  std::ofstream(file) << "text";
  EXPECT_EQ(detail(), "it holds no certificate in PEM");
  std::string damaged(kCertificate);
  damaged.replace(damaged.find("\n") + 1, 8, "!!!!!!!!");
  std::ofstream(file) << kCertificate << damaged;
  EXPECT_EQ(detail(), "certificate 2 of it can't be read");
}

}  // namespace
}  // namespace ratequant::testing
