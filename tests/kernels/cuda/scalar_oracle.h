#ifndef RATEQUANT_TESTS_KERNELS_CUDA_SCALAR_ORACLE_H_
#define RATEQUANT_TESTS_KERNELS_CUDA_SCALAR_ORACLE_H_

#include "tests/kernels/cuda/section_batch.h"

namespace ratequant::kv::cuda {

// The reference codec's arithmetic without absl, for GPU machines that have
// none. That it agrees with the reference codec is a test of its own.
class ScalarOracle final : public Oracle {
 public:
  void Encode(const BatchCase& batch, const SectionCase& section_case,
              const void* rows, uint8_t* section) const override;
  void Decode(const BatchCase& batch, const SectionCase& section_case,
              const uint8_t* section, int first, int count,
              void* rows) const override;
};

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_TESTS_KERNELS_CUDA_SCALAR_ORACLE_H_
