#ifndef RATEQUANT_TESTS_CUDA_ON_CPU_ATOMICS_H_
#define RATEQUANT_TESTS_CUDA_ON_CPU_ATOMICS_H_

#include <atomic>
#include <type_traits>

// CUDA's atomics: atomic, but ordering nothing else.

namespace cuda_on_cpu {

// A fence orders all of a thread's memory against every other fence.
void Fence();

// Replaces *address by update(*address); gives the old value.
template <class T, class F>
T AtomicUpdate(T* address, F update) {
  std::atomic_ref<T> reference(*address);
  T old = reference.load(std::memory_order_relaxed);
  while (!reference.compare_exchange_weak(old, update(old),
                                          std::memory_order_relaxed)) {
  }
  return old;
}

}  // namespace cuda_on_cpu

template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return ::cuda_on_cpu::AtomicUpdate(
      address, [value](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return ::cuda_on_cpu::AtomicUpdate(
      address, [value](T old) { return value < old ? value : old; });
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return ::cuda_on_cpu::AtomicUpdate(
      address, [value](T old) { return old < value ? value : old; });
}
template <class T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return ::cuda_on_cpu::AtomicUpdate(
      address, [value](T old) { return static_cast<T>(old | value); });
}
template <class T>
T atomicAnd(T* address, std::type_identity_t<T> value) {
  return ::cuda_on_cpu::AtomicUpdate(
      address, [value](T old) { return static_cast<T>(old & value); });
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return ::cuda_on_cpu::AtomicUpdate(address, [value](T) { return value; });
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> compare,
            std::type_identity_t<T> value) {
  std::atomic_ref<T>(*address).compare_exchange_strong(
      compare, value, std::memory_order_relaxed);
  return compare;
}

inline void __threadfence() { ::cuda_on_cpu::Fence(); }
inline void __threadfence_block() { ::cuda_on_cpu::Fence(); }

#endif  // RATEQUANT_TESTS_CUDA_ON_CPU_ATOMICS_H_
