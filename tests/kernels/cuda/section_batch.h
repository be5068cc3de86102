#ifndef RATEQUANT_TESTS_KERNELS_CUDA_SECTION_BATCH_H_
#define RATEQUANT_TESTS_KERNELS_CUDA_SECTION_BATCH_H_

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/section_format.h"
#include "ratequant/kv/tensor.h"

// Batches of sections for the encoding and decoding kernels, checked against an
// oracle. In plain C++: the same cases run under gtest through the CUDA-on-CPU
// shim and in tests/gpu on machines that have nothing but the toolkit.

namespace ratequant::kv::cuda {

// One section of a batch.
struct SectionCase {
  FormatSpec format;
  int first = 0;
  int count = 0;
  int skip_tokens = 0;
};

// One launch: sections of many formats, of one head_dim and dtype.
struct BatchCase {
  std::string name;
  int head_dim = 0;
  int page_tokens = 0;
  DType dtype = DType::kFloat32;
  int64_t row_stride = 0;
  std::vector<SectionCase> sections;
};

// What is right, for one section. `rows` are those of the case,
// [count, head_dim] with the batch's stride and dtype.
class Oracle {
 public:
  virtual ~Oracle() = default;
  // Writes what encoding writes and leaves all other bytes of `section`.
  virtual void Encode(const BatchCase& batch, const SectionCase& section_case,
                      const void* rows, uint8_t* section) const = 0;
  // Decodes rows [first, first + count).
  virtual void Decode(const BatchCase& batch, const SectionCase& section_case,
                      const uint8_t* section, int first, int count,
                      void* rows) const = 0;
};

// How much of the formats' combinations a list of batches has.
enum class Coverage {
  kAll,   // widths 1 to 8 and 16, every head_dim and dtype that matters
  kSome,  // a few of each: for slow ways to run them
};

std::vector<BatchCase> BatchCases(Coverage coverage);

// The rows that `section_case` number `index` of the batch encodes, with NaNs
// between them where the stride leaves room: reading there shows.
std::vector<uint8_t> RowsOf(const BatchCase& batch, int index);

// Encodes the batch in one launch and decodes it in another. "" when every byte
// is what the oracle says, sections' other bytes and what lies between rows
// untouched; else what differs first.
std::string CheckBatch(const BatchCase& batch, const Oracle& oracle);

// Faults in values and tasks. "" when they are found, and nothing but the named
// rows was written.
std::string CheckFaults();

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_TESTS_KERNELS_CUDA_SECTION_BATCH_H_
