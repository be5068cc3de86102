#ifndef RATEQUANT_TESTS_KERNELS_GOLDEN_NPZ_H_
#define RATEQUANT_TESTS_KERNELS_GOLDEN_NPZ_H_

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace ratequant::kv {

// Arrays of a .npz file by name, flattened: little-endian fp32, C order, not
// compressed (what numpy.savez writes). Arrays of other kinds are left out.
// nullopt when the file can't be read or isn't such an archive.
inline std::optional<std::map<std::string, std::vector<float>>> ReadNpz(
    const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  const std::string data((std::istreambuf_iterator<char>(file)), {});
  const auto number = [&](size_t offset, int bytes) {
    uint64_t value = 0;
    for (int i = bytes; i-- > 0;) {
      value = value << 8 | static_cast<uint8_t>(data.at(offset + i));
    }
    return value;
  };
  const size_t end = data.rfind("PK\x05\x06");
  if (end == std::string::npos) return std::nullopt;
  std::map<std::string, std::vector<float>> arrays;
  size_t entry = number(end + 16, 4);
  for (uint64_t left = number(end + 10, 2); left > 0; --left) {
    const size_t name_size = number(entry + 28, 2);
    const std::string name = data.substr(entry + 46, name_size);
    if (number(entry + 10, 2) != 0) return std::nullopt;  // compressed
    const size_t local = number(entry + 42, 4);
    const size_t begin =
        local + 30 + number(local + 26, 2) + number(local + 28, 2);
    const std::string array = data.substr(begin, number(entry + 24, 4));
    entry += 46 + name_size + number(entry + 30, 2) + number(entry + 32, 2);
    // NPY version 1: magic, version, 2 bytes of header length, header.
    const size_t header = number(begin + 8, 2);
    const std::string description = array.substr(10, header);
    if (description.find("'<f4'") == std::string::npos ||
        description.find("'fortran_order': False") == std::string::npos) {
      continue;
    }
    std::vector<float> values((array.size() - 10 - header) / sizeof(float));
    std::memcpy(values.data(), array.data() + 10 + header,
                values.size() * sizeof(float));
    arrays[name.substr(0, name.find(".npy"))] = std::move(values);
  }
  return arrays;
}

}  // namespace ratequant::kv

#endif  // RATEQUANT_TESTS_KERNELS_GOLDEN_NPZ_H_
