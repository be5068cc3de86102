#include "clients/cli/session.h"

#include "absl/status/statusor.h"
#include "clients/cli/json_output.h"
#include "clients/cli/yaml_output.h"

namespace ratequant::cli {

client::Client& Session::client() {
  if (client_ == nullptr) {
    client_ = std::make_unique<client::Client>(connection);
  }
  return *client_;
}

void Session::Print(absl::string_view text) {
  terminal_.out->write(text.data(), static_cast<std::streamsize>(text.size()));
  terminal_.out->flush();
}

absl::Status Session::PrintJson(const google::protobuf::Message& message,
                                bool one_line) {
  absl::StatusOr<std::string> json = ToJson(message, one_line);
  if (!json.ok()) return json.status();
  return PrintJson(*json);
}

absl::Status Session::PrintJson(const std::string& json) {
  const absl::StatusOr<std::string> text =
      yaml ? JsonToYaml(json) : absl::StatusOr<std::string>(json);
  if (!text.ok()) return text.status();
  Print(*text);
  return absl::OkStatus();
}

}  // namespace ratequant::cli
