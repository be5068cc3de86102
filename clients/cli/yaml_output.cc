#include "clients/cli/yaml_output.h"

#include <algorithm>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace ratequant::cli {
namespace {

using Json = nlohmann::ordered_json;

// What YAML 1.1 or 1.2 takes for no text, in any case.
constexpr const char* kWords[] = {"true", "false", "null", "yes", "no",
                                  "on",   "off",   "y",    "n"};

// Empty ones too: they have no block style.
bool FitsOneLine(const Json& value) {
  if (value.is_object()) return value.empty();
  return !value.is_array() ||
         std::none_of(value.begin(), value.end(),
                      [](const Json& item) { return item.is_structured(); });
}

// A name as it is when YAML can't take it for anything else.
std::string Key(const std::string& name) {
  const bool plain = !name.empty() && absl::ascii_isalpha(name[0]) &&
                     std::all_of(name.begin(), name.end(), [](char c) {
                       return absl::ascii_isalnum(c) || c == '_';
                     });
  const bool word = absl::c_linear_search(kWords, absl::AsciiStrToLower(name));
  return plain && !word ? name : Json(name).dump();
}

void Append(const Json& value, int indent, std::string* out);

// What comes after "name:".
void AppendAfter(const Json& value, int indent, std::string* out) {
  if (FitsOneLine(value)) {
    // JSON's own texts, numbers and arrays are YAML.
    absl::StrAppend(out, " ", value.dump(), "\n");
  } else {
    *out += "\n";
    Append(value, indent, out);
  }
}

// "- " and the item, whose first line goes beside it.
void AppendItem(const Json& item, int indent, std::string* out) {
  const size_t start = out->size();
  if (FitsOneLine(item)) {
    absl::StrAppend(out, std::string(indent + 2, ' '), item.dump(), "\n");
  } else {
    Append(item, indent + 2, out);
  }
  (*out)[start + indent] = '-';
}

void Append(const Json& value, int indent, std::string* out) {
  const std::string margin(indent, ' ');
  if (value.is_array()) {
    for (const Json& item : value) AppendItem(item, indent, out);
    return;
  }
  for (const auto& [name, item] : value.items()) {
    absl::StrAppend(out, margin, Key(name), ":");
    AppendAfter(item, indent + 2, out);
  }
}

}  // namespace

absl::StatusOr<std::string> JsonToYaml(absl::string_view json) {
  const Json value = Json::parse(json.begin(), json.end(), nullptr,
                                 /*allow_exceptions=*/false);
  if (value.is_discarded()) {
    return absl::InternalError("the answer isn't JSON and can't become YAML");
  }
  std::string yaml = "---";
  AppendAfter(value, 0, &yaml);
  return yaml;
}

}  // namespace ratequant::cli
