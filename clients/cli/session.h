#ifndef RATEQUANT_CLIENTS_CLI_SESSION_H_
#define RATEQUANT_CLIENTS_CLI_SESSION_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "clients/cli/text_style.h"
#include "clients/cpp/client.h"
#include "google/protobuf/message.h"

namespace ratequant::cli {

// One run of the command: global options, where output goes, and the verb that
// the command line chose.
class Session {
 public:
  explicit Session(Terminal terminal) : terminal_(terminal) {}

  const Terminal& terminal() const { return terminal_; }

  // The client, made when it is first asked for.
  client::Client& client();

  // Writes to standard output.
  void Print(absl::string_view text);

  // Writes a message, or JSON that ends in a newline, as JSON or as YAML: as
  // `yaml` says. `one_line` is for streams of JSON.
  absl::Status PrintJson(const google::protobuf::Message& message,
                         bool one_line = false);
  absl::Status PrintJson(const std::string& json);

  // Global options, filled by the parser.
  client::ConnectionOptions connection;
  bool json = false;  // JSON or YAML instead of text
  bool yaml = false;

  // Set by the verb's callback: what to run, and for error messages which model
  // it is about.
  std::function<absl::Status()> command;
  std::string model;

 private:
  const Terminal terminal_;
  std::unique_ptr<client::Client> client_;
};

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_SESSION_H_
