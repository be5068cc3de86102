// An inference engine that follows the allocator: decodes the sequences of a
// recorded capture over and over and changes to each new bit map between two
// steps. Prints a line for each map it adopts and each request it served.
#include <csignal>
#include <iostream>
#include <memory>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/strings/str_format.h"
#include "clients/cpp/bit_map_source.h"
#include "clients/cpp/client.h"
#include "clients/cpp/examples/decode_loop/engine.h"
#include "clients/replay/capture_file.h"

namespace {

using ratequant::client::BitMapSource;
using ratequant::client::LoadedBitMap;
using ratequant::examples::Engine;
using ratequant::examples::Finished;

volatile std::sig_atomic_t stopped = 0;

struct Flags {
  ratequant::client::ConnectionOptions connection;
  ratequant::client::BitMapSourceOptions source;
  ratequant::examples::EngineOptions engine;
  std::string capture;
  std::string model;
  double effective_bits = 4;
};

void AddFlags(CLI::App& app, Flags* flags) {
  app.add_option("--capture", flags->capture,
                 "File made by: python -m ratequant capture record")
      ->required();
  app.add_option("--model", flags->model, "Id or hub name of the model")
      ->required();
  app.add_option("--effective-bits", flags->effective_bits,
                 "Budget: stored bits per element")
      ->capture_default_str();
  app.add_option("--endpoint", flags->connection.allocator_endpoint,
                 "Where ratequant-allocator listens")
      ->envname("RATEQUANT_ENDPOINT")
      ->capture_default_str();
  app.add_option("--replica", flags->connection.allocator_replicas,
                 "Another allocator with the same content; may be repeated");
  app.add_option("--map-folder", flags->source.folder,
                 "Where the last good bit map is kept; default: nowhere");
  app.add_option("--concurrency", flags->engine.concurrency,
                 "Requests at the same time")
      ->capture_default_str();
  app.add_option("--decode-tokens", flags->engine.decode_tokens,
                 "Tokens of each request that are decoded")
      ->capture_default_str();
  app.add_option("--requests", flags->engine.requests,
                 "Requests to serve; 0: until a signal")
      ->capture_default_str();
}

void PrintMap(const char* what, const LoadedBitMap& map) {
  std::cout << absl::StreamFormat("%s map %s  %.4g effective bits", what,
                                  map.etag,
                                  map.answer.bit_map().effective_bits())
            << std::endl;
}

void PrintFinished(const Finished& done) {
  std::cout << absl::StreamFormat(
                   "request %d  sequence %d  map %s  %d tokens  outputs %016x",
                   done.request, done.sequence, done.etag, done.tokens,
                   done.checksum)
            << std::endl;
}

absl::Status Serve(const ratequant::replay::CaptureFile& capture,
                   const Flags& flags, BitMapSource& source) {
  auto engine = Engine::Create(capture, flags.engine, source.Current(),
                               [&source] { return source.TakeUpdate(); });
  if (!engine.ok()) return engine.status();
  PrintMap("first", *source.Current());
  while (!stopped && !(*engine)->done()) {
    const auto step = (*engine)->Step();
    if (!step.ok()) return step.status();
    if (step->adopted != nullptr) PrintMap("new", *step->adopted);
    if (!step->refused.ok()) std::cerr << step->refused << std::endl;
    for (const Finished& done : step->finished) PrintFinished(done);
  }
  return absl::OkStatus();
}

absl::Status Run(Flags& flags) {
  const auto capture = ratequant::replay::CaptureFile::Open(flags.capture);
  if (!capture.ok()) return capture.status();
  ratequant::v1::GetBitMapRequest request;
  request.set_model(flags.model);
  request.mutable_budget()->set_effective_bits(flags.effective_bits);
  flags.source.geometry = capture->info().geometry;
  const auto source = BitMapSource::Start(
      std::make_shared<ratequant::client::Client>(flags.connection), request,
      flags.source);
  if (!source.ok()) return source.status();
  const auto state = (*source)->state();
  if (!state.allocator.ok()) std::cerr << state.allocator << std::endl;
  if (!state.disk.ok()) std::cerr << state.disk << std::endl;
  return Serve(*capture, flags, **source);
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Decodes a capture with bit maps that change while it runs");
  AddFlags(app, &flags);
  CLI11_PARSE(app, argc, argv);
  std::signal(SIGINT, [](int) { stopped = 1; });
  std::signal(SIGTERM, [](int) { stopped = 1; });
  const absl::Status status = Run(flags);
  if (status.ok()) return 0;
  std::cerr << "decode_loop: " << status.message() << std::endl;
  return 1;
}
