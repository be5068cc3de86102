#include "services/common/canonical.h"

#include <openssl/evp.h>

#include <array>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/unknown_field_set.h"
#include "services/common/status.h"

namespace ratequant {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Full name of the first message that has unknown fields, empty when none has.
std::string FindUnknown(const Message& message) {
  const Reflection& reflection = *message.GetReflection();
  if (!reflection.GetUnknownFields(message).empty()) {
    return message.GetDescriptor()->full_name();
  }
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!field->is_repeated()) {
      std::string found = FindUnknown(reflection.GetMessage(message, field));
      if (!found.empty()) return found;
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
      std::string found =
          FindUnknown(reflection.GetRepeatedMessage(message, field, i));
      if (!found.empty()) return found;
    }
  }
  return "";
}

}  // namespace

absl::StatusOr<std::string> CanonicalBytes(const Message& message) {
  const std::string unknown = FindUnknown(message);
  if (!unknown.empty()) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "UNKNOWN_FIELDS",
        absl::StrCat("a ", unknown,
                     " carries fields this version doesn't know; use a version "
                     "that is at least as new as the sender's"),
        {{"message", unknown}});
  }
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  {
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    if (!message.SerializeToCodedStream(&coded)) {
      return absl::InternalError(absl::StrCat(
          "serializing a ", message.GetDescriptor()->full_name(), " failed"));
    }
  }
  return bytes;
}

absl::StatusOr<std::string> CanonicalDigest(const Message& message) {
  absl::StatusOr<std::string> bytes = CanonicalBytes(message);
  if (!bytes.ok()) return bytes.status();
  return Sha256Hex(*bytes);
}

std::string Sha256Hex(absl::string_view bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  // One-shot hashing of memory fails only when the library has no SHA-256; an
  // empty digest then never equals a real one.
  if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), &size, EVP_sha256(),
                 nullptr) != 1) {
    return "";
  }
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest.data()), size));
}

}  // namespace ratequant
