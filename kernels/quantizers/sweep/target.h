#ifndef RATEQUANT_KERNELS_QUANTIZERS_SWEEP_TARGET_H_
#define RATEQUANT_KERNELS_QUANTIZERS_SWEEP_TARGET_H_

// The -inl.h files beside this one are compiled for the scalar reference, for
// CUDA, and once for each of the CPU's vector targets, which have a namespace
// and compiler options each: kernels/cpu/sweep_kernels.cc defines the two
// macros for them.

#ifndef RQ_SWEEP_BEGIN
#define RQ_SWEEP_BEGIN      \
  namespace ratequant::kv { \
  namespace sweep {
#define RQ_SWEEP_END \
  }                  \
  }
#endif

// RQ_SWEEP_LOOP comes before a loop over widths: a GPU has no registers for
// several of them at a time.
#ifdef __CUDACC__
#define RQ_SWEEP_INLINE __device__ __forceinline__
#define RQ_SWEEP_LOOP _Pragma("unroll 1")
#else
#define RQ_SWEEP_INLINE inline
#define RQ_SWEEP_LOOP
#endif

#endif  // RATEQUANT_KERNELS_QUANTIZERS_SWEEP_TARGET_H_
