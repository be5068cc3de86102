#ifndef RATEQUANT_KV_DEVICE_H_
#define RATEQUANT_KV_DEVICE_H_

#include <cstdint>

namespace ratequant::kv {

// Where memory is and operations run. Numbers are part of the C ABI: do not
// change.
enum class DeviceKind : int32_t { kCpu = 0, kCuda = 1 };

// One device.
struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int ordinal = 0;  // CUDA: which GPU
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KV_DEVICE_H_
