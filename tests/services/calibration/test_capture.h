#ifndef RATEQUANT_TESTS_SERVICES_CALIBRATION_TEST_CAPTURE_H_
#define RATEQUANT_TESTS_SERVICES_CALIBRATION_TEST_CAPTURE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "ratequant/v1/calibration_service.pb.h"

namespace ratequant::calibration {

// A small capture with random tensors, the same in every run: what a capture
// engine or a stream delivers.
class TestCapture {
 public:
  static constexpr uint32_t kLayers = 3;
  static constexpr uint32_t kHeads = 2;
  static constexpr uint32_t kQueryHeads = 4;
  static constexpr uint32_t kHeadDim = 32;
  static constexpr uint32_t kSequences = 2;
  static constexpr uint32_t kLength = 64;
  static constexpr size_t kTensorBytes = kHeads * kLength * kHeadDim * 4;

  TestCapture();

  // Tensor `kind` (0..3: K, V, dK, dV) of a layer and sequence.
  float* Tensor(uint32_t sequence, uint32_t layer, int kind);

  // Where fake_engine.py reads it.
  void WriteTo(const std::string& path) const;

  // The provenance that fake_engine.py reports, and its loss.
  static v1::CaptureInfo Provenance();
  static v1::ModelGeometry Geometry();
  static v1::CalibrateOptions Options();

  // The whole stream as CalibrateStream takes it: the header, then the layers
  // in the order of fake_engine.py, tensors cut into pieces of `piece` bytes.
  std::vector<v1::CalibrateChunk> Chunks(const std::string& model,
                                         size_t piece = 5000) const;

 private:
  std::vector<float> data_;  // [sequence][layer][kind][head, token, dim]
};

// A temporary folder, removed at the end.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const {
    return path_ + "/" + name;
  }

 private:
  std::string path_;
};

}  // namespace ratequant::calibration

#endif  // RATEQUANT_TESTS_SERVICES_CALIBRATION_TEST_CAPTURE_H_
