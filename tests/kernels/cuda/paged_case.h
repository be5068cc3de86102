#ifndef RATEQUANT_TESTS_KERNELS_CUDA_PAGED_CASE_H_
#define RATEQUANT_TESTS_KERNELS_CUDA_PAGED_CASE_H_

#include <cuda_runtime.h>

#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/section_format.h"
#include "ratequant/kv/attention.h"
#include "ratequant/kv/tensor.h"
#include "tests/kernels/cuda/section_batch.h"

// One layer of a paged cache on its way through append, gather and decode
// attention. In plain C++, as section_batch.h.

namespace ratequant::kv::cuda {

struct PagedCase {
  std::string name;
  int head_dim = 0;
  int page_tokens = 0;
  int sink_tokens = 0;
  int window = 0;
  std::vector<FormatSpec> groups;  // [kv_heads * 2]
  DType dtype = DType::kFloat32;   // of keys, values, queries and output
  AttentionParams attention;
  int num_ctas = 1;
  // steps[i][s]: the tokens that step i adds to sequence s; 0: it takes no
  // part. Steps of at most kMaxDecodeQueries tokens a sequence attend.
  std::vector<std::vector<int>> steps;
  // Tokens of a forked prefix that sequence 0 starts with, all packed; a
  // multiple of page_tokens.
  int packed_floor = 0;
};

std::vector<PagedCase> PagedCases(Coverage coverage);

// How kernels get started and where they find their steps.
class PagedRunner {
 public:
  virtual ~PagedRunner() = default;
  // Starts `launch` on a stream in order with the default stream, and sees to
  // it that its kernels find what `write_steps` writes there.
  virtual Status Run(const std::function<Status(cudaStream_t)>& launch,
                     const std::function<Status()>& write_steps) const {
    const Status written = write_steps();
    return written.ok() ? launch(nullptr) : written;
  }
};

// Appends step by step and checks, after each, every byte of pages, sinks and
// ring against what the scalar oracle makes of all the tokens at once, what is
// read back, and the attention against fp64 over the dequantized tokens. "" or
// what differs first.
std::string CheckPaged(const PagedCase& paged_case,
                       const PagedRunner& runner = PagedRunner());

// Values and steps that can't be stored. "" when they are found, and the rest
// is stored.
std::string CheckPagedFaults();

// Zeroed and copied items of several pools. "" when these and no others have
// changed.
std::string CheckEdits();

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_TESTS_KERNELS_CUDA_PAGED_CASE_H_
