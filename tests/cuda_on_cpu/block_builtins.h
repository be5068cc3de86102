#ifndef RATEQUANT_TESTS_CUDA_ON_CPU_BLOCK_BUILTINS_H_
#define RATEQUANT_TESTS_CUDA_ON_CPU_BLOCK_BUILTINS_H_

#include "tests/cuda_on_cpu/current.h"

namespace cuda_on_cpu {

// What a block's barrier gives back to every thread.
enum class BarrierOp { kSync, kCount, kAnd, kOr };

// Waits until all of the block's threads that haven't ended are here, and
// reduces `value`. Fails when they aren't all in the same kind of barrier.
int WaitForBlock(BarrierOp op, int value);

// One component of a builtin variable; reads as the number it is for the
// calling thread. Not a macro: the runtime API has fields of the same names.
template <class T, T Position::*kVector, unsigned T::*kComponent>
struct Component {
  operator unsigned() const { return current->*kVector.*kComponent; }
};

template <class T, T Position::*kVector>
struct BuiltinVector {
  Component<T, kVector, &T::x> x;
  Component<T, kVector, &T::y> y;
  Component<T, kVector, &T::z> z;
  operator T() const { return current->*kVector; }
};

}  // namespace cuda_on_cpu

inline constexpr ::cuda_on_cpu::BuiltinVector<
    uint3, &::cuda_on_cpu::Position::thread_index>
    threadIdx{};
inline constexpr ::cuda_on_cpu::BuiltinVector<
    uint3, &::cuda_on_cpu::Position::block_index>
    blockIdx{};
inline constexpr ::cuda_on_cpu::BuiltinVector<
    dim3, &::cuda_on_cpu::Position::block_dim>
    blockDim{};
inline constexpr ::cuda_on_cpu::BuiltinVector<
    dim3, &::cuda_on_cpu::Position::grid_dim>
    gridDim{};
inline constexpr int warpSize = 32;

inline void __syncthreads() {
  ::cuda_on_cpu::WaitForBlock(::cuda_on_cpu::BarrierOp::kSync, 0);
}
inline int __syncthreads_count(int predicate) {
  return ::cuda_on_cpu::WaitForBlock(::cuda_on_cpu::BarrierOp::kCount,
                                     predicate);
}
inline int __syncthreads_and(int predicate) {
  return ::cuda_on_cpu::WaitForBlock(::cuda_on_cpu::BarrierOp::kAnd, predicate);
}
inline int __syncthreads_or(int predicate) {
  return ::cuda_on_cpu::WaitForBlock(::cuda_on_cpu::BarrierOp::kOr, predicate);
}

#endif  // RATEQUANT_TESTS_CUDA_ON_CPU_BLOCK_BUILTINS_H_
