#ifndef RATEQUANT_TESTS_GPU_PAGED_BENCH_H_
#define RATEQUANT_TESTS_GPU_PAGED_BENCH_H_

namespace ratequant::kv::cuda {

// Prints the paged cache's part of the table: append, gather and decode
// attention of one layer against the bytes they must move at the copy
// bandwidth, a mixed map against a uniform one of the same bytes, and both
// against the same kernel on fp16.
void BenchPaged();

}  // namespace ratequant::kv::cuda

#endif  // RATEQUANT_TESTS_GPU_PAGED_BENCH_H_
