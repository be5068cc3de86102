// An engine that starts while the allocator is down: how long until it has the
// last good bit map from disk, verified and converted to a cache's layout.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "clients/cpp/bit_map_source.h"
#include "clients/cpp/canonical_digest.h"
#include "clients/cpp/client.h"
#include "clients/cpp/quantizer_text.h"
#include "tests/bench/bench.h"
#include "tests/services/allocation/temp_dir.h"

namespace ratequant::bench {
namespace {

v1::GetBitMapRequest Query() {
  v1::GetBitMapRequest request;
  request.set_model("models/Qwen--Qwen3-8B");
  request.mutable_budget()->set_effective_bits(4);
  return request;
}

// A map of Qwen3-8B's shape: 36 layers of 8 KV heads, 576 groups.
v1::GetBitMapResponse Answer() {
  v1::GetBitMapResponse answer;
  v1::BitMap& map = *answer.mutable_bit_map();
  map.set_name(Query().model());
  map.mutable_geometry()->set_layers(36);
  map.mutable_geometry()->set_kv_heads(8);
  map.mutable_geometry()->set_head_dim(128);
  map.mutable_geometry()->set_query_heads(32);
  *map.add_quantizers() = *client::QuantizerFromText("kivi");
  *map.add_quantizers() = *client::QuantizerFromText("turboquant");
  for (int group = 0; group < 576; ++group) {
    map.add_quantizer_index(group % 2);
    map.add_width(2 + group % 5);
  }
  answer.set_etag(client::CanonicalDigest(map));
  map.set_name(absl::StrCat(Query().model(), "/bitMaps/", answer.etag()));
  return answer;
}

// A port of this machine: where nothing listens, or where connections are made
// and nobody ever answers.
class DeadPort {
 public:
  explicit DeadPort(bool listens) : socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    socklen_t size = sizeof(address);
    if (bind(socket_, generic, size) != 0 ||
        (listens && listen(socket_, 1024) != 0) ||
        getsockname(socket_, generic, &size) != 0) {
      std::cerr << "no port: " << std::strerror(errno) << "\n";
      std::exit(1);
    }
    endpoint_ = absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
  }
  ~DeadPort() { close(socket_); }
  DeadPort(const DeadPort&) = delete;
  DeadPort& operator=(const DeadPort&) = delete;

  const std::string& endpoint() const { return endpoint_; }

 private:
  const int socket_;
  std::string endpoint_;
};

// In a process of its own: starts the client and prints the milliseconds.
int StartClient(const std::string& folder, const std::string& endpoint) {
  std::unique_ptr<client::BitMapSource> source;
  const double seconds = Seconds([&] {
    auto client = std::make_shared<client::Client>(
        client::ConnectionOptions{.allocator_endpoint = endpoint});
    auto started =
        client::BitMapSource::Start(client, Query(), {.folder = folder});
    if (started.ok()) source = *std::move(started);
  });
  if (source == nullptr || source->Current()->layout.layers.size() != 36) {
    return 1;
  }
  std::cout << seconds * 1e3 << std::endl;
  _exit(0);  // ending the client is not measured, nor waited for
}

// Starts this program as a client; its milliseconds, below 0 when it failed.
double TimedProcess(const std::string& folder, const std::string& endpoint) {
  const std::string command = absl::StrCat(
      "exec /proc/", getpid(), "/exe --start ", folder, " ", endpoint);
  FILE* output = popen(command.c_str(), "r");
  if (output == nullptr) return -1;
  char line[64] = "";
  const bool printed = std::fgets(line, sizeof(line), output) != nullptr;
  double milliseconds = -1;
  const bool ended = pclose(output) == 0;
  return printed && ended && absl::SimpleAtod(line, &milliseconds)
             ? milliseconds
             : -1;
}

int Main(int argc, char** argv) {
  if (argc == 4 && std::string(argv[1]) == "--start") {
    return StartClient(argv[2], argv[3]);
  }
  const Options options = ParseOptions(argc, argv);
  const testing::TempDir folder;
  const client::DiskCopy disk(folder.path(), Query());
  const absl::Status kept = disk.Store({Answer(), absl::Now()});
  if (!kept.ok()) {
    std::cerr << kept << "\n";
    return 1;
  }
  const int runs = options.quick ? 5 : 21;
  std::string note;
  double slower = 0;
  for (const bool listens : {false, true}) {
    const DeadPort port(listens);
    std::vector<double> times;
    for (int i = 0; i <= runs; ++i) {
      times.push_back(TimedProcess(folder.path(), port.endpoint()));
      if (times.back() < 0) return 1;
    }
    times.erase(times.begin());  // warm-up
    const double median = Quantile(times, 0.5);
    slower = std::max(slower, median);
    absl::StrAppendFormat(&note, "%s%.1f ms (at most %.1f) with a port that %s",
                          note.empty() ? "" : ", ", median,
                          *std::max_element(times.begin(), times.end()),
                          listens ? "never answers" : "nobody listens on");
  }
  Report({"client start without allocator", slower, "ms",
          "576 groups from disk, fresh process", "<= 50 ms", slower <= 50,
          note});
  return 0;
}

}  // namespace
}  // namespace ratequant::bench

int main(int argc, char** argv) { return ratequant::bench::Main(argc, argv); }
