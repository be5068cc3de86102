#include "clients/cli/certificate.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <ctime>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ratequant::cli {
namespace {

template <typename T, void (*kFree)(T*)>
struct Freed {
  void operator()(T* object) const { kFree(object); }
};

using X509Ptr = std::unique_ptr<X509, Freed<X509, X509_free>>;
using BioPtr = std::unique_ptr<BIO, Freed<BIO, BIO_free_all>>;

absl::Time TimeOf(const ASN1_TIME* time) {
  std::tm parts = {};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return absl::InfinitePast();
  return absl::FromTM(parts, absl::UTCTimeZone());
}

std::string SubjectOf(const X509* certificate) {
  const BioPtr text(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(text.get(), X509_get_subject_name(certificate), 0,
                     XN_FLAG_RFC2253);
  char* data = nullptr;
  const long size = BIO_get_mem_data(text.get(), &data);  // NOLINT
  return {data, static_cast<size_t>(size)};
}

}  // namespace

absl::StatusOr<std::vector<Certificate>> ParseCertificates(
    absl::string_view pem) {
  const BioPtr source(
      BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  std::vector<Certificate> certificates;
  ERR_clear_error();
  while (const X509Ptr certificate{
      PEM_read_bio_X509(source.get(), nullptr, nullptr, nullptr)}) {
    certificates.push_back(
        {.subject = SubjectOf(certificate.get()),
         .begins = TimeOf(X509_get0_notBefore(certificate.get())),
         .expires = TimeOf(X509_get0_notAfter(certificate.get()))});
  }
  // At the end there is no other line that begins a certificate.
  const bool ended =
      ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (ended && !certificates.empty()) return certificates;
  return absl::InvalidArgumentError(
      ended ? "it holds no certificate in PEM"
            : absl::StrCat("certificate ", certificates.size() + 1,
                           " of it can't be read"));
}

}  // namespace ratequant::cli
