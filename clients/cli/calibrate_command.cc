#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "clients/cli/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/format.h"
#include "clients/cli/help.h"
#include "clients/cli/interrupt_watcher.h"
#include "clients/cli/progress.h"
#include "clients/cli/query_options.h"
#include "clients/cli/table.h"
#include "clients/cli/text_file.h"
#include "clients/cli/value_checks.h"
#include "clients/cpp/resource_names.h"

namespace ratequant::cli {
namespace {

struct CalibrateFlags {
  std::string model_path;
  std::string model;
  std::string text;
  std::vector<std::string> quantizers;
  uint32_t sequences = 0;
  uint32_t sequence_length = 0;
  std::optional<uint32_t> sinks;
  uint32_t page_tokens = 0;
  bool subtract_means = false;
  bool attention_output = false;
};

// The model id that a path suggests: its last part.
absl::StatusOr<std::string> ModelOfPath(absl::string_view path) {
  while (absl::ConsumeSuffix(&path, "/")) {
  }
  std::string last = client::ResourceId(path);
  if (last.empty() || last == "." || last == "..") {
    return UsageError(absl::StrCat("--model-path ", path,
                                   " gives the model no name: add --model"));
  }
  return last;
}

absl::StatusOr<v1::CalibrateModelRequest> MakeRequest(
    const CalibrateFlags& flags, const std::string& model) {
  v1::CalibrateModelRequest request;
  request.set_model(client::ModelName(model));
  request.set_model_path(flags.model_path);
  v1::CalibrateOptions& options = *request.mutable_options();
  absl::Status quantizers = FillQuantizers(flags.quantizers, options);
  if (!quantizers.ok()) return quantizers;
  options.set_sequences(flags.sequences);
  options.set_sequence_length(flags.sequence_length);
  if (flags.sinks.has_value()) options.set_sink_tokens(*flags.sinks);
  options.set_page_tokens(flags.page_tokens);
  options.set_subtract_means(flags.subtract_means);
  options.set_attention_output(flags.attention_output);
  absl::StatusOr<std::string> text = ReadTextFile(flags.text);
  if (!text.ok()) {
    return UsageError(
        absl::StrCat("--text: ", std::string(text.status().message())));
  }
  request.set_text(*std::move(text));
  return request;
}

std::string RenderResult(const v1::CalibrateProgress& done,
                         const std::string& model, const TextStyle& style) {
  std::string published =
      done.published()
          ? ""
          : "not published: the allocator can't be reached; the worker keeps "
            "it and publishes it\nwhen the allocator is back";
  std::string time = FormatTimeSpan(ToDuration(done.elapsed()));
  if (done.has_sweep_time()) {
    absl::StrAppend(&time, ", of which ",
                    FormatTimeSpan(ToDuration(done.sweep_time())),
                    " measuring quantizers");
  }
  return RenderPairs({{"model", client::ModelIdOf(done.calibration())},
                      {"calibration", client::ResourceId(done.calibration())},
                      {"tokens", FormatCount(done.tokens_done())},
                      {"time", time},
                      {"warnings", absl::StrJoin(done.warnings(), "\n")},
                      {"state", published},
                      {"next", absl::StrCat("ratequant bitmap get --model ",
                                            model, " --effective-bits 3")}},
                     style);
}

absl::Status Calibrate(const CalibrateFlags& flags, Session& session) {
  if (flags.model.empty()) {
    absl::StatusOr<std::string> model = ModelOfPath(flags.model_path);
    if (!model.ok()) return model.status();
    session.model = *model;
  }
  absl::StatusOr<v1::CalibrateModelRequest> request =
      MakeRequest(flags, session.model);
  if (!request.ok()) return request.status();

  const Terminal& terminal = session.terminal();
  ProgressView view(terminal.err, terminal.err_style, terminal.err_is_live);
  client::Cancellation cancellation;
  auto watcher = InterruptWatcher::Start([&] { cancellation.Cancel(); });
  if (!watcher.ok()) return watcher.status();
  absl::Status written;
  auto done = session.client().CalibrateModel(
      *request,
      [&](const v1::CalibrateProgress& progress) {
        if (!session.json) return view.Update(progress);
        written.Update(session.PrintJson(progress, /*one_line=*/true));
      },
      &cancellation);
  view.Clear();
  if (!done.ok()) return done.status();
  if (!session.json) {
    session.Print(RenderResult(*done, session.model, terminal.out_style));
  }
  return written;
}

}  // namespace

void AddCalibrateCommand(CLI::App& app, Session& session) {
  auto flags = std::make_shared<CalibrateFlags>();
  CLI::App* verb = app.add_subcommand(
      "calibrate",
      "Measures how much each head of a model loses at each bit width, and "
      "stores the result");
  verb->add_option("--model-path", flags->model_path,
                   "Folder of a Hugging Face causal language model on the "
                   "worker's machine, absolute or relative to its model root")
      ->required()
      ->option_text("PATH (required)");
  verb->add_option("--text", flags->text,
                   "Calibration text, UTF-8, on this machine; - is standard "
                   "input")
      ->required()
      ->option_text("FILE (required)");
  verb->add_option("--model", flags->model,
                   "What to store it under; the last part of the path when "
                   "left out")
      ->option_text("MODEL");
  AddQuantizerOption(*verb, &flags->quantizers,
                     "Quantizers to measure; all that support the model when "
                     "left out. Names: rtn, kivi, quarot, turboquant, tcq");
  verb->add_option("--sequences", flags->sequences,
                   "Sequences to measure (default 16)")
      ->check(WholeNumber())
      ->option_text("N");
  verb->add_option("--sequence-length", flags->sequence_length,
                   "Tokens in a sequence, a multiple of 32 and of kivi's "
                   "group_size (default 512)")
      ->check(WholeNumber())
      ->option_text("TOKENS");
  verb->add_option("--sinks", flags->sinks,
                   "First tokens of a sequence that the cache keeps in fp16 "
                   "(default 4)")
      ->check(WholeNumber())
      ->option_text("TOKENS");
  verb->add_option("--page-tokens", flags->page_tokens,
                   "Tokens in a page of the cache: 16, 32 (default), 64 or "
                   "128, a multiple of kivi's group_size. Bytes are counted in "
                   "such pages, and the bit maps are for them")
      ->check(WholeNumber())
      ->option_text("TOKENS");
  verb->add_flag("--subtract-means", flags->subtract_means,
                 "Take each channel's mean off K and V before they are "
                 "measured; caches of its bit maps store them so too. Not for "
                 "models that cap attention's logits");
  verb->add_flag("--attention-output", flags->attention_output,
                 "Also measure what attention's output loses, for --objective "
                 "attention-output; takes longer");
  SetHelp(*verb,
          {.details =
               "Shows progress on standard error; Ctrl-C cancels the work. "
               "With --json every\nprogress message is one line of JSON; the "
               "last has phase DONE and the\ncalibration's name. --timeout "
               "limits the whole calibration; without it there is no limit.",
           .examples = {
               "ratequant calibrate --model-path SmolLM2-135M-Instruct --text "
               "calibration.txt",
               "ratequant calibrate --model-path /models/qwen3-8b --model "
               "Qwen/Qwen3-8B \\\n      --text calibration.txt --page-tokens "
               "64 --quantizer kivi:group_size=64 turboquant"}});
  verb->callback([flags, &session] {
    session.model = flags->model;
    session.command = [flags, &session] { return Calibrate(*flags, session); };
  });
}

}  // namespace ratequant::cli
