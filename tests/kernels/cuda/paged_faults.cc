#include <algorithm>
#include <limits>

#include "kernels/cuda/page_ops.h"
#include "kernels/cuda/paged_append.h"
#include "kernels/quantizers/number.h"
#include "kernels/quantizers/section_layout.h"
#include "tests/kernels/cuda/paged_case.h"
#include "tests/kernels/cuda/upload.h"

namespace ratequant::kv::cuda {
namespace {

constexpr int kDim = 64;
constexpr int kPage = 32;
constexpr int kHeads = 2;
constexpr int kRing = 8;  // the window: K and V are coded row by row
constexpr int kRows = 48;
constexpr uint8_t kUntouched = 0x5A;

// One layer at 8 bits, one sequence, one step of kRows tokens of 0.5.
class FaultRun {
 public:
  Status Start() {
    FormatSpec key;
    key.quantizer.kind = QuantizerKind::kRtn;
    key.width = 8;
    FormatSpec value = key;
    value.tensor = Tensor::kValue;
    const SectionLayout layout =
        MakeSectionLayout(key.quantizer, Tensor::kKey, key.width, kDim, kPage);
    LayerMemory& memory = layer_.memory;
    std::vector<GroupPlace> groups;
    for (int group = 0; group < kHeads * 2; ++group) {
      groups.push_back({static_cast<uint32_t>(memory.page_bytes),
                        memory.sidecar_bytes, 1, kRing});
      memory.page_bytes += static_cast<int64_t>(layout.section_bytes);
      memory.sidecar_bytes += int64_t{2} * kDim * kRing;
    }
    Status status =
        FormatTable::Create(kDim, kPage, {key, value}, nullptr, &formats_);
    if (status.ok()) status = Upload(groups, &groups_);
    if (status.ok()) status = Upload<int32_t>({0, 1, 0, 1}, &index_);
    if (status.ok()) status = Upload<int32_t>({0, 1}, &blocks_);
    memory.block_table = blocks_.data();
    memory.groups = groups_.data();
    memory.max_blocks = 2;
    memory.kv_heads = kHeads;
    memory.head_dim = kDim;
    memory.page_tokens = kPage;
    memory.window = kRing;
    layer_.formats = index_.data();
    return status;
  }

  // The values of K and V, [kHeads, kRows, kDim] each.
  static std::vector<float> Values() {
    return std::vector<float>(kHeads * kRows * kDim, 0.5f);
  }

  // What the fault word says; `memory` gets pages and sidecars.
  Status Append(const std::vector<float>& keys,
                const std::vector<float>& values, int count,
                std::vector<uint8_t>* memory) {
    const size_t page_bytes = 2 * layer_.memory.page_bytes;
    const size_t bytes = page_bytes + layer_.memory.sidecar_bytes;
    DeviceBuffer<float> key_buffer, value_buffer;
    DeviceBuffer<SequenceStep> steps;
    DeviceBuffer<FaultWord> fault;
    DeviceBuffer<uint8_t> pool;
    Status status = Upload(keys, &key_buffer);
    if (status.ok()) status = Upload(values, &value_buffer);
    if (status.ok()) status = Upload<SequenceStep>({{}, {0, 0, count}}, &steps);
    if (status.ok()) status = Upload<FaultWord>({kNoFault}, &fault);
    if (status.ok()) {
      status = Upload(std::vector<uint8_t>(bytes, kUntouched), &pool);
    }
    if (!status.ok()) return status;
    AppendLaunch launch;
    launch.formats = &formats_;
    launch.layer = layer_;
    launch.layer.memory.pages = pool.data();
    launch.layer.memory.sidecars = pool.data() + page_bytes;
    launch.steps = steps.data();
    launch.num_steps = 2;
    launch.max_tokens = kRows;
    launch.keys = {key_buffer.data(), DType::kFloat32, kRows * kDim, kDim};
    launch.values = {value_buffer.data(), DType::kFloat32, kRows * kDim, kDim};
    launch.fault = fault.data();
    status = LaunchAppend(launch, nullptr);
    std::vector<FaultWord> word;
    if (status.ok()) status = Download(fault, &word);
    if (status.ok()) status = Download(pool, memory);
    return status.ok() ? StatusOfFault(word[0]) : status;
  }

 private:
  FormatTable formats_;
  PagedLayer layer_;
  DeviceBuffer<GroupPlace> groups_;
  DeviceBuffer<int32_t> index_;
  DeviceBuffer<int32_t> blocks_;
};

std::string CheckValue(FaultRun& run, bool value_tensor, int head, int row,
                       float bad, const std::string& message) {
  const size_t place =
      (size_t{static_cast<unsigned>(head)} * kRows + row) * kDim + 9;
  std::vector<float> spoilt = FaultRun::Values(), zeroed = spoilt;
  spoilt[place] = bad;
  zeroed[place] = 0.0f;
  const std::vector<float> good = FaultRun::Values();
  std::vector<uint8_t> got, expected;
  const Status clean =
      run.Append(value_tensor ? good : zeroed, value_tensor ? zeroed : good,
                 kRows, &expected);
  if (!clean.ok()) return clean.message();
  const Status found = run.Append(value_tensor ? good : spoilt,
                                  value_tensor ? spoilt : good, kRows, &got);
  if (found.code() != StatusCode::kDataLoss ||
      found.message().find(message) == std::string::npos) {
    return "a bad value gave \"" + found.message() + "\", not \"" + message +
           "\"";
  }
  return got == expected ? "" : message + ": not stored as 0";
}

}  // namespace

std::string CheckPagedFaults() {
  FaultRun run;
  const Status started = run.Start();
  if (!started.ok()) return started.message();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  // Task 4 is step 1's first group; row 3 goes into a page, row 45 to the ring.
  std::string error =
      CheckValue(run, false, 0, 3, -kInf, "-Inf at row 3, channel 9 of task 4");
  if (error.empty()) {
    error = CheckValue(run, true, 0, 3, 2 * kMaxHalf,
                       "65504, at row 3, channel 9 of task 5");
  }
  if (error.empty()) {
    error =
        CheckValue(run, true, 1, 45, std::numeric_limits<float>::quiet_NaN(),
                   "NaN at row 45, channel 9 of task 7");
  }
  for (const int count : {kRows + 1, -1}) {
    std::vector<uint8_t> memory;
    const Status status =
        run.Append(FaultRun::Values(), FaultRun::Values(), count, &memory);
    const bool found = status.code() == StatusCode::kInvalidArgument &&
                       status.message().find("more than the launch allows") !=
                           std::string::npos;
    const bool untouched =
        memory == std::vector<uint8_t>(memory.size(), kUntouched);
    if (error.empty() && !(found && untouched)) {
      error = "a step of " + std::to_string(count) + " tokens gave \"" +
              status.message() + (untouched ? "\"" : "\" and was stored");
    }
  }
  return error;
}

std::string CheckEdits() {
  constexpr int kItems = 6;
  // Odd numbers of vectors: less than a block has threads, and many more.
  const std::vector<int64_t> sizes = {16, 4048, 33 * 1024 + 16};
  std::vector<std::vector<uint8_t>> expected;
  std::vector<DeviceBuffer<uint8_t>> buffers(sizes.size());
  std::vector<MemoryPool> pools;
  Status status;
  for (size_t i = 0; i < sizes.size(); ++i) {
    std::vector<uint8_t> bytes;
    for (int64_t b = 0; b < kItems * sizes[i]; ++b) {
      bytes.push_back(static_cast<uint8_t>(b * 31 + b / sizes[i] * 7 + 1));
    }
    if (status.ok()) status = Upload(bytes, &buffers[i]);
    pools.push_back({buffers[i].data(), sizes[i]});
    const auto item = [&](int n) { return bytes.begin() + n * sizes[i]; };
    std::fill(item(4), item(5), uint8_t{0});
    std::copy(item(5), item(6), item(0));
    std::copy(item(2), item(3), item(1));
    expected.push_back(bytes);
  }
  DeviceBuffer<MemoryPool> pool_table;
  DeviceBuffer<ItemEdit> edits;
  if (status.ok()) status = Upload(pools, &pool_table);
  if (status.ok()) {
    status = Upload<ItemEdit>({{4, -1}, {0, 5}, {-1, 3}, {1, 2}}, &edits);
  }
  EditLaunch launch;
  launch.pools = pool_table.data();
  launch.num_pools = static_cast<int>(pools.size());
  launch.edits = edits.data();
  launch.num_edits = 4;
  if (status.ok()) status = LaunchEdits(launch, nullptr);
  if (!status.ok()) return status.message();
  for (size_t i = 0; i < sizes.size(); ++i) {
    std::vector<uint8_t> got;
    const Status done = Download(buffers[i], &got);
    if (!done.ok()) return done.message();
    if (got != expected[i]) {
      return "pool " + std::to_string(i) + " isn't as the edits say";
    }
  }
  return "";
}

}  // namespace ratequant::kv::cuda
