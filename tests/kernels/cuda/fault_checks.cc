#include <functional>
#include <limits>

#include "kernels/cuda/decode.h"
#include "kernels/cuda/device_buffer.h"
#include "kernels/cuda/encode.h"
#include "kernels/cuda/format_table.h"
#include "kernels/quantizers/element.h"
#include "tests/kernels/cuda/section_batch.h"

namespace ratequant::kv::cuda {
namespace {

constexpr int kDim = 64;
constexpr int kPage = 32;
constexpr int kTasks = 3;
constexpr size_t kRows = size_t{kPage} * kDim;  // elements a task
constexpr uint8_t kUntouched = 0x5A;

// Three whole pages to encode, and what may be wrong with them.
struct Work {
  std::vector<float> values = std::vector<float>(kTasks * kRows, 0.5f);
  EncodeTask tasks[kTasks];

  float& At(int task, int row, int channel) {
    return values[task * kRows + row * kDim + channel];
  }
};

struct FaultCase {
  const char* name;
  std::function<void(Work&)> spoil;
  StatusCode code;
  std::string message;
  bool bad_task;  // nothing may be written for task 1
};

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::vector<FaultCase> FaultCases() {
  const auto bad_value = [](const char* name, float value,
                            const std::string& text) {
    return FaultCase{name,
                     [value](Work& work) {
                       work.At(1, 9, 5) = -kInf;
                       work.At(2, 0, 0) = kNaN;
                       work.At(1, 7, 63) = value;
                     },
                     StatusCode::kDataLoss,
                     text + " at row 7, channel 63 of task 1", false};
  };
  const auto bad_task = [](const char* name,
                           std::function<void(EncodeTask&)> spoil,
                           const std::string& text) {
    return FaultCase{name, [spoil](Work& work) { spoil(work.tasks[1]); },
                     StatusCode::kInvalidArgument, text, true};
  };
  return {
      bad_value("NaN", kNaN, "NaN"),
      bad_value("Inf", kInf, "Inf"),
      bad_value("-Inf", -kInf, "-Inf"),
      bad_value("too large", -65520.0f,
                "a value beyond fp16's largest magnitude, 65504,"),
      {"a bad sink",
       [](Work& work) {
         work.tasks[0].skip_tokens = 32;
         work.At(0, 3, 0) = kNaN;
       },
       StatusCode::kDataLoss, "NaN at row 3, channel 0 of task 0", false},
      bad_task(
          "format below", [](EncodeTask& t) { t.format = -1; },
          "task 1 names a format"),
      bad_task(
          "format above", [](EncodeTask& t) { t.format = 9; },
          "task 1 names a format"),
      bad_task(
          "first below", [](EncodeTask& t) { t.first = -32; },
          "aren't within the page"),
      bad_task(
          "count below", [](EncodeTask& t) { t.count = -32; },
          "aren't within the page"),
      bad_task(
          "count above", [](EncodeTask& t) { t.count = 33; },
          "aren't within the page"),
      bad_task(
          "end above", [](EncodeTask& t) { t.first = 1 << 30; },
          "aren't within the page"),
      bad_task(
          "section null", [](EncodeTask& t) { t.section = nullptr; },
          "not a multiple of 16"),
      bad_task(
          "section unaligned", [](EncodeTask& t) { t.section += 8; },
          "not a multiple of 16"),
      bad_task(
          "rows null", [](EncodeTask& t) { t.rows = nullptr; },
          "not a multiple of 16"),
      bad_task(
          "rows unaligned",
          [](EncodeTask& t) { t.rows = static_cast<const float*>(t.rows) + 1; },
          "not a multiple of 16"),
  };
}

class FaultRun {
 public:
  explicit FaultRun(const FormatTable& formats)
      : formats_(formats), section_(formats.layout(0).section_bytes) {}

  // "" when the launch found what the case says.
  std::string Check(const FaultCase& fault_case) {
    Work work;
    const std::vector<uint8_t> before(kTasks * section_, kUntouched);
    Status status = values_.Allocate(work.values.size());
    if (status.ok()) status = sections_.Allocate(before.size());
    if (!status.ok()) return status.message();
    for (int i = 0; i < kTasks; ++i) {
      work.tasks[i] = {sections_.data() + i * section_,
                       values_.data() + i * kRows,
                       0,
                       0,
                       kPage,
                       0};
    }
    fault_case.spoil(work);
    std::vector<uint8_t> after(before.size());
    status = values_.CopyFrom(work.values.data(), nullptr);
    if (status.ok()) status = sections_.CopyFrom(before.data(), nullptr);
    if (!status.ok()) return status.message();
    const Status found = Encode(work, &after);
    if (found.code() != fault_case.code ||
        found.message().find(fault_case.message) == std::string::npos) {
      return std::string(fault_case.name) + " gave \"" + found.message() +
             "\", not \"" + fault_case.message + "\"";
    }
    for (size_t i = 0; i < after.size(); ++i) {
      const bool untouched = after[i] == kUntouched;
      const bool of_task_1 = i / section_ == 1;
      if (fault_case.bad_task && of_task_1 && !untouched) {
        return std::string(fault_case.name) + ": something was written";
      }
    }
    // The other tasks are done all the same; an encoded page begins with a zero
    // point or scale, never with what was there before.
    return after[2 * section_] == kUntouched
               ? std::string(fault_case.name) + ": task 2 wasn't done"
               : "";
  }

 private:
  Status Encode(const Work& work, std::vector<uint8_t>* sections) {
    Status status = tasks_.Allocate(kTasks);
    if (status.ok()) status = tasks_.CopyFrom(work.tasks, nullptr);
    if (status.ok()) status = fault_.Allocate(1);
    FaultWord fault = kNoFault;
    if (status.ok()) status = fault_.CopyFrom(&fault, nullptr);
    if (!status.ok()) return status;
    EncodeLaunch launch;
    launch.formats = &formats_;
    launch.tasks = tasks_.data();
    launch.num_tasks = kTasks;
    launch.max_count = kPage;
    launch.dtype = DType::kFloat32;
    launch.row_stride = kDim;
    launch.fault = fault_.data();
    status = LaunchEncode(launch, nullptr);
    if (status.ok()) status = fault_.CopyTo(&fault, nullptr);
    if (status.ok()) status = sections_.CopyTo(sections->data(), nullptr);
    if (status.ok()) {
      status = StatusOfCuda(cudaStreamSynchronize(nullptr), "EncodeKernel");
    }
    return status.ok() ? StatusOfFault(fault) : status;
  }

  const FormatTable& formats_;
  const size_t section_;
  DeviceBuffer<float> values_;
  DeviceBuffer<uint8_t> sections_;
  DeviceBuffer<EncodeTask> tasks_;
  DeviceBuffer<FaultWord> fault_;
};

}  // namespace

std::string CheckFaults() {
  for (const QuantizerKind kind :
       {QuantizerKind::kRtn, QuantizerKind::kKivi, QuantizerKind::kTurboquant,
        QuantizerKind::kTcq}) {
    QuantizerSpec quantizer;
    quantizer.kind = kind;
    FormatTable formats;
    const Status status = FormatTable::Create(
        kDim, kPage, {{quantizer, Tensor::kKey, 3}}, nullptr, &formats);
    if (!status.ok()) return status.message();
    std::vector<FaultCase> cases = FaultCases();
    if (kind == QuantizerKind::kKivi) {
      for (const auto& [first, count] : {std::pair{8, 24}, {0, 16}}) {
        cases.push_back({"half a group",
                         [first = first, count = count](Work& work) {
                           work.tasks[1].first = first;
                           work.tasks[1].count = count;
                         },
                         StatusCode::kInvalidArgument,
                         "aren't whole groups of tokens", true});
      }
    }
    for (const FaultCase& fault_case : cases) {
      const std::string error = FaultRun(formats).Check(fault_case);
      if (!error.empty()) {
        return "quantizer " + std::to_string(static_cast<int>(kind)) + ", " +
               error;
      }
    }
  }
  return "";
}

}  // namespace ratequant::kv::cuda
