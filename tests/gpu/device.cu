// Prints the architecture and the name of the first GPU, "90 NVIDIA H100"; or
// why there is none, and fails.

#include <cuda_runtime.h>

#include <cstdio>

int main() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  cudaDeviceProp device;
  if (error != cudaSuccess || count < 1 ||
      cudaGetDeviceProperties(&device, 0) != cudaSuccess) {
    std::puts(error == cudaSuccess ? "the CUDA runtime finds none"
                                   : cudaGetErrorString(error));
    return 1;
  }
  std::printf("%d%d %s\n", device.major, device.minor, device.name);
  return 0;
}
