#include "clients/cpp/canonical_digest.h"

#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "kernels/cache/sha256.h"

namespace ratequant::client {

std::string CanonicalDigest(const google::protobuf::MessageLite& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    // Writing to a string can't fail.
    message.SerializeToCodedStream(&coded);
  }
  return kv::Sha256Hex(bytes);
}

}  // namespace ratequant::client
