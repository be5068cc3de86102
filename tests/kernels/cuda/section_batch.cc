#include "tests/kernels/cuda/section_batch.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "kernels/cuda/decode.h"
#include "kernels/cuda/device_buffer.h"
#include "kernels/cuda/encode.h"
#include "kernels/cuda/format_table.h"
#include "tests/kernels/cuda/upload.h"

namespace ratequant::kv::cuda {
namespace {

constexpr uint8_t kUntouched = 0x5A;
constexpr size_t kMargin = 64;  // between sections, and between their rows

// Things of different sizes in one piece of device memory, with margins.
class Arena {
 public:
  // Returns the offset of `bytes` bytes.
  size_t Add(size_t bytes) {
    const size_t offset = host_.size() + kMargin;
    host_.resize(offset + (bytes + 15) / 16 * 16, kUntouched);
    return offset;
  }
  uint8_t* host(size_t offset) { return host_.data() + offset; }
  uint8_t* device(size_t offset) { return device_.data() + offset; }
  const std::vector<uint8_t>& bytes() const { return host_; }

  Status Upload() {
    host_.resize(host_.size() + kMargin, kUntouched);
    Status status = device_.Allocate(host_.size());
    return status.ok() ? device_.CopyFrom(host_.data(), nullptr) : status;
  }
  Status Download(std::vector<uint8_t>* bytes) const {
    bytes->resize(device_.size());
    Status status = device_.CopyTo(bytes->data(), nullptr);
    return status.ok()
               ? StatusOfCuda(cudaStreamSynchronize(nullptr), "a kernel")
               : status;
  }

 private:
  std::vector<uint8_t> host_;
  DeviceBuffer<uint8_t> device_;
};

std::string Describe(const BatchCase& batch, size_t index) {
  const SectionCase& section = batch.sections[index];
  char text[160];
  std::snprintf(
      text, sizeof(text),
      "section %zu (quantizer %d, group_size %d, %s, width %d, rows [%d, %d), "
      "skip_tokens %d)",
      index, static_cast<int>(section.format.quantizer.kind),
      section.format.quantizer.group_size,
      section.format.tensor == Tensor::kKey ? "K" : "V", section.format.width,
      section.first, section.first + section.count, section.skip_tokens);
  return batch.name + ", " + text;
}

// The first of `offsets` at or below `place`.
size_t SectionAt(const std::vector<size_t>& offsets, size_t place) {
  const auto after = std::upper_bound(offsets.begin(), offsets.end(), place);
  return after == offsets.begin() ? 0 : after - offsets.begin() - 1;
}

std::string Compare(const char* what, const BatchCase& batch,
                    const std::vector<size_t>& offsets,
                    const std::vector<uint8_t>& got,
                    const std::vector<uint8_t>& expected) {
  for (size_t i = 0; i < expected.size(); ++i) {
    if (got[i] == expected[i]) continue;
    const size_t section = SectionAt(offsets, i);
    char text[120];
    std::snprintf(text, sizeof(text), "%s: byte %zd is 0x%02X, not 0x%02X; ",
                  what, static_cast<ssize_t>(i - offsets[section]), got[i],
                  expected[i]);
    return text + Describe(batch, section);
  }
  return "";
}

// One batch on its way through both kernels.
class BatchRun {
 public:
  BatchRun(const BatchCase& batch, const Oracle& oracle)
      : batch_(batch), oracle_(oracle) {}

  std::string Run() {
    std::vector<FormatSpec> specs;
    for (const SectionCase& s : batch_.sections) specs.push_back(s.format);
    const Status status = FormatTable::Create(
        batch_.head_dim, batch_.page_tokens, specs, nullptr, &formats_);
    if (!status.ok()) return status.message();
    const std::string error = CheckEncode();
    return error.empty() ? CheckDecode() : error;
  }

 private:
  size_t RowBytes() const {
    return batch_.row_stride * ElementSize(batch_.dtype);
  }

  std::string CheckEncode() {
    Arena rows;
    std::vector<size_t> row_offsets;
    for (size_t i = 0; i < batch_.sections.size(); ++i) {
      const std::vector<uint8_t> data = RowsOf(batch_, static_cast<int>(i));
      row_offsets.push_back(rows.Add(data.size()));
      std::copy(data.begin(), data.end(), rows.host(row_offsets.back()));
      offsets_.push_back(
          sections_.Add(formats_.layout(static_cast<int>(i)).section_bytes));
    }
    Status status = rows.Upload();
    if (status.ok()) status = sections_.Upload();
    if (!status.ok()) return status.message();

    std::vector<EncodeTask> tasks;
    for (size_t i = 0; i < batch_.sections.size(); ++i) {
      const SectionCase& s = batch_.sections[i];
      tasks.push_back({sections_.device(offsets_[i]),
                       rows.device(row_offsets[i]), static_cast<int>(i),
                       s.first, s.count, s.skip_tokens});
      oracle_.Encode(batch_, s, rows.host(row_offsets[i]),
                     sections_.host(offsets_[i]));
    }
    EncodeLaunch launch;
    status = Prepare(tasks, &launch);
    if (status.ok()) status = LaunchEncode(launch, nullptr);
    std::vector<uint8_t> got;
    if (status.ok()) status = Finish(sections_, &got);
    if (!status.ok()) return status.message();
    return Compare("encoded", batch_, offsets_, got, sections_.bytes());
  }

  std::string CheckDecode() {
    Status status = sections_.Upload();  // what the oracle wrote
    Arena rows;
    std::vector<size_t> row_offsets;
    std::vector<DecodeTask> tasks;
    for (size_t i = 0; i < batch_.sections.size(); ++i) {
      const SectionCase& s = batch_.sections[i];
      // A piece of what was encoded, of any length.
      const int first = s.first + s.count / 5;
      const int count = s.count - s.count / 5 - s.count / 7;
      row_offsets.push_back(rows.Add(count * RowBytes()));
      tasks.push_back({sections_.device(offsets_[i]), nullptr,
                       static_cast<int>(i), first, count});
    }
    if (status.ok()) status = rows.Upload();
    if (!status.ok()) return status.message();
    for (size_t i = 0; i < tasks.size(); ++i) {
      tasks[i].rows = rows.device(row_offsets[i]);
      oracle_.Decode(batch_, batch_.sections[i], sections_.host(offsets_[i]),
                     tasks[i].first, tasks[i].count, rows.host(row_offsets[i]));
    }
    DecodeLaunch launch;
    status = Prepare(tasks, &launch);
    if (status.ok()) status = LaunchDecode(launch, nullptr);
    std::vector<uint8_t> got;
    if (status.ok()) status = Finish(rows, &got);
    if (!status.ok()) return status.message();
    return Compare("decoded", batch_, row_offsets, got, rows.bytes());
  }

  template <class Task, class Params>
  Status Prepare(const std::vector<Task>& tasks, Params* launch) {
    Status status = tasks_.Allocate(tasks.size() * sizeof(Task));
    if (status.ok()) {
      status = tasks_.CopyFrom(reinterpret_cast<const uint8_t*>(tasks.data()),
                               nullptr);
    }
    if (status.ok()) status = Upload<FaultWord>({kNoFault}, &fault_);
    launch->formats = &formats_;
    launch->tasks = reinterpret_cast<const Task*>(tasks_.data());
    launch->num_tasks = static_cast<int>(tasks.size());
    launch->max_count = batch_.page_tokens;
    launch->dtype = batch_.dtype;
    launch->row_stride = batch_.row_stride;
    launch->fault = fault_.data();
    return status;
  }

  Status Finish(const Arena& arena, std::vector<uint8_t>* bytes) {
    FaultWord fault = 0;
    Status status = fault_.CopyTo(&fault, nullptr);
    if (status.ok()) status = arena.Download(bytes);
    return status.ok() ? StatusOfFault(fault) : status;
  }

  const BatchCase& batch_;
  const Oracle& oracle_;
  FormatTable formats_;
  Arena sections_;
  std::vector<size_t> offsets_;
  DeviceBuffer<uint8_t> tasks_;
  DeviceBuffer<FaultWord> fault_;
};

}  // namespace

std::string CheckBatch(const BatchCase& batch, const Oracle& oracle) {
  return BatchRun(batch, oracle).Run();
}

}  // namespace ratequant::kv::cuda
