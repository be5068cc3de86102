#ifndef RATEQUANT_KERNELS_QUANTIZERS_HOST_DEVICE_H_
#define RATEQUANT_KERNELS_QUANTIZERS_HOST_DEVICE_H_

// Marks the arithmetic that host and CUDA kernels share. It is plain C++, so
// that both give the same bits: fp32, no contraction, no fast math.
#ifdef __CUDACC__
#define RQ_HOST_DEVICE __host__ __device__
#else
#define RQ_HOST_DEVICE
#endif

#endif  // RATEQUANT_KERNELS_QUANTIZERS_HOST_DEVICE_H_
