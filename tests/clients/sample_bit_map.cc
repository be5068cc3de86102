#include "tests/clients/sample_bit_map.h"

#include "absl/strings/str_cat.h"
#include "clients/cpp/canonical_digest.h"
#include "clients/cpp/quantizer_text.h"

namespace ratequant::testing {

v1::GetBitMapResponse SampleAnswer(int width, const SampleShape& shape) {
  v1::GetBitMapResponse answer;
  v1::BitMap& map = *answer.mutable_bit_map();
  map.set_name("models/m");
  map.mutable_geometry()->set_layers(shape.layers);
  map.mutable_geometry()->set_kv_heads(shape.kv_heads);
  map.mutable_geometry()->set_head_dim(shape.head_dim);
  *map.add_quantizers() = *client::QuantizerFromText("kivi");
  for (int group = 0; group < 2 * shape.layers * shape.kv_heads; ++group) {
    map.add_quantizer_index(0);
    map.add_width(width);
  }
  map.mutable_cache()->set_sink_tokens(4);
  answer.set_etag(client::CanonicalDigest(map));
  map.set_name(absl::StrCat("models/m/bitMaps/", answer.etag()));
  return answer;
}

v1::GetBitMapRequest SampleQuery() {
  v1::GetBitMapRequest request;
  request.set_model("models/m");
  request.mutable_budget()->set_effective_bits(4);
  return request;
}

}  // namespace ratequant::testing
