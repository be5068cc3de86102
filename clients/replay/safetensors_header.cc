#include "clients/replay/safetensors_header.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace ratequant::replay {
namespace {

using Json = nlohmann::json;

// Takes the events of a header and refuses the first that doesn't belong: no
// tree is built, nesting ends at its second level, and a name that comes twice
// is seen, which a tree would hide.
class HeaderReader : public nlohmann::json_sax<Json> {
 public:
  SafeTensorsHeader& header() { return header_; }
  const std::string& error() const { return error_; }

  bool start_object(size_t) override {
    switch (place_) {
      case Place::kBegin:
        place_ = Place::kTop;
        return true;
      case Place::kTensor:
        place_ = Place::kField;
        return true;
      case Place::kMetadata:
        place_ = Place::kMetadataKey;
        return true;
      default:
        return Unexpected("an object");
    }
  }

  bool key(std::string& name) override {
    name_ = name;
    switch (place_) {
      case Place::kTop:
        return TopKey();
      case Place::kField:
        return FieldKey();
      default:  // kMetadataKey: objects are nowhere else
        place_ = Place::kMetadataValue;
        if (header_.metadata.try_emplace(name).second) return true;
        return Fail(
            absl::StrCat("metadata ", QuotedName(name), " is there twice"));
    }
  }

  bool end_object() override {
    switch (place_) {
      case Place::kField:
        place_ = Place::kTop;
        if (fields_ == kDType + kShape + kOffsets) return true;
        return Fail(absl::StrCat("tensor ", QuotedName(tensor_name_),
                                 " lacks dtype, shape or data_offsets"));
      case Place::kMetadataKey:
        place_ = Place::kTop;
        return true;
      default:
        place_ = Place::kEnd;
        return true;
    }
  }

  bool start_array(size_t) override {
    if (place_ == Place::kNumbers && !in_array_) return in_array_ = true;
    return Unexpected("a list");
  }

  bool end_array() override {
    in_array_ = false;
    place_ = Place::kField;
    return true;
  }

  bool number_unsigned(Json::number_unsigned_t value) override {
    if (place_ != Place::kNumbers || !in_array_) return Unexpected("a number");
    numbers_->push_back(value);
    return true;
  }

  bool string(std::string& text) override {
    if (place_ == Place::kMetadataValue) {
      place_ = Place::kMetadataKey;
      header_.metadata[name_] = text;
      return true;
    }
    if (place_ != Place::kText) return Unexpected("a text");
    place_ = Place::kField;
    tensor_->dtype = text;
    return true;
  }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("true or false"); }
  bool number_integer(Json::number_integer_t) override {
    return Unexpected("a negative number");
  }
  bool number_float(Json::number_float_t, const std::string&) override {
    return Unexpected("a number that isn't whole or is too large");
  }
  bool binary(Json::binary_t&) override { return Unexpected("binary data"); }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return Fail(absl::StrCat("is not JSON from byte ", position, " on"));
  }

 private:
  enum class Place {
    kBegin,
    kTop,
    kTensor,
    kField,
    kText,
    kNumbers,
    kMetadata,
    kMetadataKey,
    kMetadataValue,
    kEnd
  };
  static constexpr int kDType = 1, kShape = 2, kOffsets = 4;

  bool TopKey() {
    if (name_ == "__metadata__") {
      place_ = Place::kMetadata;
      if (!std::exchange(metadata_seen_, true)) return true;
      return Fail("'__metadata__' is there twice");
    }
    place_ = Place::kTensor;
    tensor_name_ = name_;
    fields_ = 0;
    const auto [at, added] = header_.tensors.try_emplace(name_);
    tensor_ = &at->second;
    if (added) return true;
    return Fail(absl::StrCat("tensor ", QuotedName(name_), " is there twice"));
  }

  bool FieldKey() {
    int field = 0;
    if (name_ == "dtype") {
      field = kDType;
      place_ = Place::kText;
    } else if (name_ == "shape") {
      field = kShape;
      numbers_ = &tensor_->shape;
      place_ = Place::kNumbers;
    } else if (name_ == "data_offsets") {
      field = kOffsets;
      numbers_ = &tensor_->data_offsets;
      place_ = Place::kNumbers;
    }
    const char* wrong = field == 0          ? " has an unknown field "
                        : (fields_ & field) ? " has twice the field "
                                            : nullptr;
    fields_ |= field;
    if (wrong == nullptr) return true;
    return Fail(absl::StrCat("tensor ", QuotedName(tensor_name_), wrong,
                             QuotedName(name_)));
  }

  bool Unexpected(const char* what) {
    if (place_ == Place::kBegin) return Fail("is not a JSON object");
    return Fail(absl::StrCat("has ", what, " in the place of the value of ",
                             QuotedName(name_)));
  }

  bool Fail(std::string error) {
    if (error_.empty()) error_ = std::move(error);
    return false;
  }

  SafeTensorsHeader header_;
  std::string error_;
  Place place_ = Place::kBegin;
  std::string name_;  // the last key
  bool metadata_seen_ = false;
  std::string tensor_name_;
  TensorEntry* tensor_ = nullptr;
  int fields_ = 0;
  std::vector<uint64_t>* numbers_ = nullptr;
  bool in_array_ = false;
};

}  // namespace

std::string QuotedName(absl::string_view name) {
  constexpr size_t kLongest = 100;
  return absl::StrCat("'", absl::Utf8SafeCHexEscape(name.substr(0, kLongest)),
                      name.size() > kLongest ? "...'" : "'");
}

absl::StatusOr<SafeTensorsHeader> ParseSafeTensorsHeader(
    absl::string_view json) {
  HeaderReader reader;
  if (!Json::sax_parse(json.begin(), json.end(), &reader)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the safetensors header ", reader.error()));
  }
  return std::move(reader.header());
}

}  // namespace ratequant::replay
