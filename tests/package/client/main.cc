// What an engine outside of this tree writes: a cache from the bit map that a
// source found, here on disk, and a client whose answers are mocked.
#include <iostream>
#include <memory>

#include "clients/cpp/bit_map_source.h"
#include "clients/cpp/canonical_digest.h"
#include "clients/cpp/client.h"
#include "clients/cpp/mocks/mock_connection.h"
#include "clients/cpp/quantizer_text.h"
#include "ratequant/kv/kv_cache.h"

namespace {

namespace rq = ratequant;
using rq::client::BitMapSource;

// One group of 4 bits in kivi for K and V each.
rq::v1::GetBitMapResponse Answer() {
  rq::v1::GetBitMapResponse answer;
  rq::v1::BitMap& map = *answer.mutable_bit_map();
  map.set_name("models/m");
  map.mutable_geometry()->set_layers(1);
  map.mutable_geometry()->set_kv_heads(1);
  map.mutable_geometry()->set_head_dim(64);
  *map.add_quantizers() = *rq::client::QuantizerFromText("kivi");
  for (int group = 0; group < 2; ++group) {
    map.add_quantizer_index(0);
    map.add_width(4);
  }
  answer.set_etag(rq::client::CanonicalDigest(map));
  map.set_name("models/m/bitMaps/" + answer.etag());
  return answer;
}

// Bytes of a page; 0 on failure.
size_t PageBytes(const std::string& folder,
                 std::shared_ptr<rq::client::Client> client) {
  rq::v1::GetBitMapRequest request;
  request.set_model("m");
  request.mutable_budget()->set_code_bits(4);
  const auto source = BitMapSource::Start(client, request, {.folder = folder});
  if (!source.ok()) {
    std::cerr << source.status() << "\n";
    return 0;
  }
  const auto cache =
      rq::kv::KvCache::Create((*source)->Current()->config, {.num_pages = 1});
  if (!cache.ok()) std::cerr << cache.status() << "\n";
  return cache.ok() ? (*cache)->layout().page_bytes() : 0;
}

}  // namespace

int main(int, char** argv) {
  auto connection =
      std::make_unique<testing::NiceMock<rq::client::MockConnection>>();
  ON_CALL(*connection, GetBitMap).WillByDefault(testing::Return(Answer()));
  ON_CALL(*connection, WatchBitMap)
      .WillByDefault(testing::Return(absl::UnavailableError("gone")));
  const size_t mocked = PageBytes(
      argv[1], std::make_shared<rq::client::Client>(std::move(connection)));
  // Nothing listens there: from the disk.
  const size_t kept = PageBytes(
      argv[1],
      std::make_shared<rq::client::Client>(
          rq::client::ConnectionOptions{.allocator_endpoint = "127.0.0.1:1"}));
  std::cout << mocked << " " << kept << std::endl;
  return 0;
}
