#ifndef RATEQUANT_TESTS_CUDA_ON_CPU_SHARED_MEMORY_H_
#define RATEQUANT_TESTS_CUDA_ON_CPU_SHARED_MEMORY_H_

#include <cstddef>

namespace cuda_on_cpu {

// The dynamic shared memory of one block at a time. What lies behind it is
// poisoned for AddressSanitizer; without that, writes there are found when the
// block has ended.
class SharedMemory {
 public:
  SharedMemory() = default;
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // `bytes` of memory for a new block, filled with garbage: what an earlier
  // block left there can't hide that this one forgot to write it.
  void* Prepare(size_t bytes);

  // Fails when something was written behind the memory.
  void CheckOverrun() const;

 private:
  void Reserve(size_t bytes);
  void Free();

  unsigned char* data_ = nullptr;
  size_t capacity_ = 0;
  size_t bytes_ = 0;
};

}  // namespace cuda_on_cpu

#endif  // RATEQUANT_TESTS_CUDA_ON_CPU_SHARED_MEMORY_H_
