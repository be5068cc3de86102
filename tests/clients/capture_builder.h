#ifndef RATEQUANT_TESTS_CLIENTS_CAPTURE_BUILDER_H_
#define RATEQUANT_TESTS_CLIENTS_CAPTURE_BUILDER_H_

#include <string>

#include "nlohmann/json.hpp"

namespace ratequant::testing {

// A recorded capture (clients/python/ratequant/capture/CAPTURE.md) as a header
// and data that a test can change before it writes them: 3 sequences of 48
// tokens, 2 layers, 2 KV heads, 4 query heads, head_dim 32, fp32 of a normal
// distribution.
struct CaptureBuilder {
  CaptureBuilder();

  // The file's bytes.
  std::string Bytes() const;
  // The same with `header_text` in the header's place.
  std::string BytesWith(const std::string& header_text) const;

  // Sets one element of a tensor.
  void Set(const std::string& tensor, size_t element, float value);

  nlohmann::ordered_json header;
  std::string data;
};

// A folder that is removed with what is in it.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  // Writes a file in it and returns its path.
  std::string Write(const std::string& name, const std::string& bytes) const;

  std::string path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace ratequant::testing

#endif  // RATEQUANT_TESTS_CLIENTS_CAPTURE_BUILDER_H_
