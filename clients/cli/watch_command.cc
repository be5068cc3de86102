#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/bit_map_options.h"
#include "clients/cli/commands.h"
#include "clients/cli/evaluation_view.h"
#include "clients/cli/help.h"
#include "clients/cli/interrupt_watcher.h"

namespace ratequant::cli {
namespace {

void PrintAnswer(const v1::GetBitMapResponse& answer, Session& session) {
  if (answer.unchanged()) {
    session.Print(absl::StrCat("unchanged: ", answer.etag(), "\n"));
    return;
  }
  session.Print(absl::StrFormat(
      "%s  %.4g effective bits, %.6g bytes per token\n%s", answer.etag(),
      answer.bit_map().effective_bits(), answer.bit_map().bytes_per_token(),
      RenderEvidence(answer)));
}

// Until it is interrupted, which is how it is meant to end.
absl::Status Watch(const BitMapOptions& options, Session& session) {
  client::Cancellation cancellation;
  auto interrupt = InterruptWatcher::Start([&] { cancellation.Cancel(); });
  if (!interrupt.ok()) return interrupt.status();
  v1::GetBitMapRequest request;
  absl::Status filled = FillBitMapRequest(options, session.client(), request);
  if (!filled.ok()) return filled;
  absl::Status printed;
  absl::Status ended = session.client().WatchBitMap(
      request,
      [&](const v1::GetBitMapResponse& answer) {
        printed.Update(WriteMap(options, answer));
        if (!printed.ok()) return cancellation.Cancel();
        if (!session.json) return PrintAnswer(answer, session);
        printed.Update(session.PrintJson(answer, /*one_line=*/true));
      },
      &cancellation);
  return cancellation.cancelled() ? printed : ended;
}

}  // namespace

void AddWatchCommand(CLI::App& app, Session& session) {
  auto options = std::make_shared<BitMapOptions>();
  CLI::App* verb = app.add_subcommand(
      "watch", "Prints the best bit map, and each that takes its place");
  AddBitMapOptions(*verb, options.get());
  SetHelp(*verb,
          {.details =
               "Runs until it is interrupted, and goes on after the allocator "
               "was away. --json prints\none GetBitMapResponse a line.",
           .examples = {"ratequant watch --model Qwen/Qwen3-8B "
                        "--effective-bits 3 --json"}});
  verb->callback([options, &session] {
    CheckOneBudget(*options);
    session.model = options->query.model;
    session.command = [options, &session] { return Watch(*options, session); };
  });
}

}  // namespace ratequant::cli
