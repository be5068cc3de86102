#include "tests/services/calibration/test_capture.h"

#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>

namespace ratequant::calibration {

TestCapture::TestCapture() {
  std::mt19937 random(7);
  // Integers in a fixed range: the same with every standard library.
  data_.resize(size_t{kSequences} * kLayers * 4 * kTensorBytes / 4);
  for (float& x : data_) x = (int(random() % 20001) - 10000) / 5000.0f;
}

float* TestCapture::Tensor(uint32_t sequence, uint32_t layer, int kind) {
  return &data_[((sequence * kLayers + layer) * 4 + kind) * kTensorBytes / 4];
}

void TestCapture::WriteTo(const std::string& path) const {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(data_.data()), data_.size() * 4);
}

v1::CaptureInfo TestCapture::Provenance() {
  v1::CaptureInfo info;
  std::string digest;
  for (int i = 0; i < 32; ++i) digest += "ab";
  info.set_device("cpu");
  info.set_model_digest(digest);
  info.set_tokenizer_digest(digest);
  info.set_token_digest(digest);
  info.set_mean_nll(2.5);
  info.add_software("fake-engine 1");
  return info;
}

v1::ModelGeometry TestCapture::Geometry() {
  v1::ModelGeometry geometry;
  geometry.set_layers(kLayers);
  geometry.set_kv_heads(kHeads);
  geometry.set_query_heads(kQueryHeads);
  geometry.set_head_dim(kHeadDim);
  return geometry;
}

v1::CalibrateOptions TestCapture::Options() {
  v1::CalibrateOptions options;
  options.set_sequences(kSequences);
  options.set_sequence_length(kLength);
  return options;
}

std::vector<v1::CalibrateChunk> TestCapture::Chunks(const std::string& model,
                                                    size_t piece) const {
  std::vector<v1::CalibrateChunk> chunks(1);
  v1::CalibrateHeader* header = chunks[0].mutable_header();
  header->set_model(model);
  *header->mutable_geometry() = Geometry();
  *header->mutable_options() = Options();
  *header->mutable_capture() = Provenance();
  header->set_dtype("float32");
  for (uint32_t s = 0; s < kSequences; ++s) {
    for (uint32_t layer = kLayers; layer-- > 0;) {
      for (int kind = 0; kind < 4; ++kind) {
        const char* tensor = reinterpret_cast<const char*>(
            const_cast<TestCapture*>(this)->Tensor(s, layer, kind));
        for (size_t offset = 0; offset < kTensorBytes; offset += piece) {
          v1::TensorChunk* chunk = chunks.emplace_back().mutable_tensor();
          chunk->set_sequence(s);
          chunk->set_layer(layer);
          chunk->set_kind(static_cast<v1::TensorChunk::Kind>(kind + 1));
          chunk->set_offset(offset);
          chunk->set_data(tensor + offset,
                          std::min(piece, kTensorBytes - offset));
        }
      }
    }
  }
  return chunks;
}

TempDir::TempDir() {
  std::string path =
      (std::filesystem::temp_directory_path() / "ratequant-XXXXXX").string();
  if (mkdtemp(path.data()) == nullptr) abort();
  path_ = std::filesystem::canonical(path).string();
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace ratequant::calibration
