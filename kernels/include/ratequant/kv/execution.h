#ifndef RATEQUANT_KV_EXECUTION_H_
#define RATEQUANT_KV_EXECUTION_H_

#include <memory>

#include "absl/functional/function_ref.h"

namespace ratequant::kv {

// Runs the iterations of a loop on threads that the caller brings.
// Implementations are thread-safe.
class LoopRunner {
 public:
  virtual ~LoopRunner() = default;

  // Iterations that can run at the same time, at least 1.
  virtual int concurrency() const = 0;

  // Calls iteration(0) to iteration(count - 1), in any order and from any
  // thread, and returns when all are done. `iteration` doesn't throw.
  virtual void Run(int count, absl::FunctionRef<void(int)> iteration) = 0;
};

// A pool of `threads` threads, the calling one included; 0: one per core. Loops
// of several callers run one after the other.
std::unique_ptr<LoopRunner> MakeThreadPool(int threads);

// What an operation runs on.
struct Execution {
  void* stream = nullptr;  // CUDA: a cudaStream_t; null: the default stream
  LoopRunner* loops = nullptr;  // CPU; null: the calling thread alone
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KV_EXECUTION_H_
