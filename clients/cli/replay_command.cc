#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/help.h"
#include "clients/cli/replay_maps.h"
#include "clients/cli/replay_view.h"
#include "clients/cli/value_checks.h"
#include "clients/replay/replay.h"

namespace ratequant::cli {
namespace {

constexpr int kDefaultDecodeTokens = 64;
constexpr uint32_t kMaxThreads = 1024;

struct ReplayFlags {
  std::string capture;
  std::vector<std::string> maps;
  std::vector<std::string> uniform;
  std::optional<uint32_t> sinks;
  std::optional<uint32_t> window;
  std::optional<uint32_t> page_tokens;
  std::optional<uint32_t> decode;
  uint32_t threads = 0;
  bool per_layer = false;
};

absl::Status BadValue(const char* option, const absl::Status& status) {
  return UsageError(absl::StrCat(option, ": ", status.message()));
}

absl::StatusOr<std::vector<replay::ReplayMap>> AllMaps(
    const ReplayFlags& flags, const kv::KvGeometry& geometry) {
  std::vector<replay::ReplayMap> maps;
  for (const std::string& path : flags.maps) {
    auto map = ReadMapFile(path);
    if (!map.ok()) return BadValue("--map", map.status());
    maps.push_back(*std::move(map));
  }
  for (const std::string& text : flags.uniform) {
    auto map = UniformMap(text, geometry);
    if (!map.ok()) return BadValue("--uniform", map.status());
    maps.push_back(*std::move(map));
  }
  for (replay::ReplayMap& map : maps) {
    kv::KvCacheConfig& config = map.config;
    if (flags.sinks.has_value()) {
      config.sink_tokens = static_cast<int>(*flags.sinks);
    }
    if (flags.window.has_value()) {
      config.window = static_cast<int>(*flags.window);
    }
    if (flags.page_tokens.has_value()) {
      config.page_tokens = static_cast<int>(*flags.page_tokens);
    }
  }
  return maps;
}

absl::Status RunReplay(const ReplayFlags& flags, Session& session) {
  if (flags.threads > kMaxThreads) {
    return UsageError(absl::StrCat("--threads: ", flags.threads,
                                   " is not supported; at most ", kMaxThreads,
                                   " are"));
  }
  const auto capture = replay::CaptureFile::Open(flags.capture);
  if (!capture.ok()) return BadValue("--capture", capture.status());
  const replay::CaptureInfo& info = capture->info();
  const auto maps = AllMaps(flags, info.geometry);
  if (!maps.ok()) return maps.status();
  const auto loops = kv::MakeThreadPool(static_cast<int>(flags.threads));
  const ReplayHeading heading = {
      .capture = info,
      .decode_tokens = flags.decode.has_value()
                           ? int64_t{*flags.decode}
                           : std::min(kDefaultDecodeTokens, info.tokens / 2),
      .threads = loops->concurrency()};
  const auto results =
      replay::Replay(*capture, *maps, heading.decode_tokens, *loops);
  if (!results.ok()) return results.status();
  if (session.json) return session.PrintJson(ReplayJson(heading, *results));
  session.Print(RenderReplay(heading, *results, flags.per_layer,
                             session.terminal().out_style));
  return absl::OkStatus();
}

void AddOptions(CLI::App& verb, ReplayFlags* flags) {
  verb.add_option("--capture", flags->capture,
                  "A recorded capture: python -m ratequant capture record "
                  "--help")
      ->required()
      ->option_text("FILE (required)");
  verb.add_option("--map", flags->maps,
                  "Bit maps, as 'ratequant bitmap get --json' prints them")
      ->option_text("FILE ...");
  verb.add_option("--uniform", flags->uniform,
                  "The same quantizer and width for all groups, such as kivi:4 "
                  "or kivi:group_size=64:4; or fp16")
      ->option_text("NAME[:PARAMETER=VALUE,...]:BITS ...");
  verb.add_option("--sinks", flags->sinks,
                  "First tokens kept in fp16 (default: the bit map's, 4 with "
                  "--uniform)")
      ->check(WholeNumber())
      ->option_text("TOKENS");
  verb.add_option("--window", flags->window,
                  "Newest tokens kept in fp16 (default: the bit map's, 32 with "
                  "--uniform)")
      ->check(WholeNumber())
      ->option_text("TOKENS");
  verb.add_option(
          "--page-tokens", flags->page_tokens,
          "Tokens in a page: 16, 32, 64 or 128 (default: the bit map's, "
          "32 with --uniform)")
      ->check(WholeNumber())
      ->option_text("TOKENS");
  verb.add_option("--decode", flags->decode,
                  "Tokens at the end of every sequence that are decoded one by "
                  "one; those before are a prefill (default 64, at most half "
                  "of the sequence)")
      ->check(WholeNumber())
      ->option_text("TOKENS");
  verb.add_option("--threads", flags->threads,
                  "Threads of the runtime (default: one per core)")
      ->check(WholeNumber())
      ->option_text("N");
  verb.add_flag("--per-layer", flags->per_layer,
                "Show the errors of every layer too; --json has them anyway");
}

}  // namespace

void AddReplayCommand(CLI::App& app, Session& session) {
  auto flags = std::make_shared<ReplayFlags>();
  CLI::App* verb = app.add_subcommand(
      "replay",
      "Runs the runtime's cache on a recorded capture: error, bytes and speed "
      "of bit maps");
  AddOptions(*verb, flags.get());
  SetHelp(
      *verb,
      {.details =
           "For every map: bytes of one sequence's cache as allocated, and per "
           "element; the error\nof decode attention against exact attention "
           "over the recorded K and V (relative L2 of a\ntoken's output, mean "
           "over tokens and layers; the layer with the largest mean, and the\n"
           "largest of a single token in one layer); tokens per second of "
           "appending the prefill and\nof decode attention. Needs no server.",
       .examples = {
           "ratequant replay --capture capture.safetensors --map map.json "
           "--uniform kivi:4 fp16",
           "python -m ratequant capture record --model DIR --text held-out.txt "
           "--out capture.safetensors"}});
  verb->callback([flags, &session] {
    if (flags->maps.empty() && flags->uniform.empty()) {
      throw CLI::ValidationError(
          "give the bit maps to try: --map, --uniform or both");
    }
    session.command = [flags, &session] { return RunReplay(*flags, session); };
  });
}

}  // namespace ratequant::cli
