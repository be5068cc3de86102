#include "tests/kernels/cuda/paged_run.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "kernels/quantizers/element.h"
#include "kernels/quantizers/rotation.h"
#include "tests/kernels/cuda/upload.h"

namespace ratequant::kv::cuda {
namespace {

std::string FirstDifference(const char* what, const std::vector<uint8_t>& got,
                            const std::vector<uint8_t>& expected,
                            int64_t item_bytes) {
  for (size_t i = 0; i < expected.size(); ++i) {
    if (got[i] == expected[i]) continue;
    char text[120];
    std::snprintf(text, sizeof(text),
                  "%s %lld: byte %lld is 0x%02X, not 0x%02X", what,
                  static_cast<long long>(i / item_bytes),
                  static_cast<long long>(i % item_bytes), got[i], expected[i]);
    return text;
  }
  return "";
}

// Half a unit in the last place, relative.
double Rounding(DType dtype) {
  return dtype == DType::kFloat32   ? 0.0
         : dtype == DType::kFloat16 ? 1.0 / 2048
                                    : 1.0 / 256;
}

}  // namespace

Status PagedRun::Start() {
  std::vector<int32_t> index;
  for (size_t i = 0; i < case_.groups.size(); ++i) {
    index.push_back(static_cast<int32_t>(i));
  }
  Status status = FormatTable::Create(case_.head_dim, case_.page_tokens,
                                      case_.groups, nullptr, &formats_);
  if (status.ok()) status = Upload(index, &format_index_);
  if (status.ok()) status = Upload(host_.pages(), &pages_);
  if (status.ok()) status = Upload(host_.sidecars(), &sidecars_);
  if (status.ok()) status = Upload(host_.block_table(), &block_table_);
  if (status.ok()) status = Upload(host_.groups(), &groups_);
  return status.ok() ? StatusOfCuda(cudaStreamSynchronize(nullptr), "uploads")
                     : status;
}

PagedLayer PagedRun::Layer() const {
  PagedLayer layer;
  layer.memory = host_.memory();
  layer.memory.pages = pages_.data();
  layer.memory.sidecars = sidecars_.data();
  layer.memory.block_table = block_table_.data();
  layer.memory.groups = groups_.data();
  layer.formats = format_index_.data();
  return layer;
}

std::vector<SequenceStep> PagedRun::Steps(
    const std::vector<int>& tokens) const {
  std::vector<SequenceStep> steps(1);
  int row = 0;
  for (int s = static_cast<int>(tokens.size()) - 1; s >= 0; --s) {
    steps.push_back({PagedHost::Slot(s), host_.length(s), tokens[s], row,
                     host_.packed_floor(s)});
    row += tokens[s];
  }
  return steps;
}

PagedRun::HostTensor PagedRun::MakeTensor(int heads, int rows) const {
  HostTensor tensor;
  tensor.row_stride = case_.head_dim + 8;
  tensor.head_stride = (rows + 1) * tensor.row_stride;
  tensor.bytes.assign(heads * tensor.head_stride * ElementSize(case_.dtype),
                      0xFF);
  return tensor;
}

Status PagedRun::Run(const std::vector<SequenceStep>& steps,
                     const std::function<Status(cudaStream_t)>& launch) {
  return runner_.Run(launch,
                     [&] { return steps_.CopyFrom(steps.data(), nullptr); });
}

Status PagedRun::Append(const std::vector<int>& tokens) {
  std::vector<SequenceStep> steps = Steps(tokens);
  const int rows = steps.back().first_row + steps.back().count;
  HostTensor tensors[2];
  for (int tensor = 0; tensor < 2; ++tensor) {
    HostTensor& to = tensors[tensor] = MakeTensor(host_.kv_heads(), rows);
    for (int head = 0; head < host_.kv_heads(); ++head) {
      for (int s = 0; s < static_cast<int>(tokens.size()); ++s) {
        const SequenceStep& step = steps[tokens.size() - s];
        for (int row = 0; row < step.count; ++row) {
          for (int c = 0; c < case_.head_dim; ++c) {
            StoreElement(
                host_.InputAt(s, 2 * head + tensor, step.begin + row, c),
                to.bytes.data(), case_.dtype,
                head * to.head_stride + (step.first_row + row) * to.row_stride +
                    c);
          }
        }
      }
    }
  }
  DeviceBuffer<uint8_t> keys, values;
  Status status = Upload(tensors[0].bytes, &keys);
  if (status.ok()) status = Upload(tensors[1].bytes, &values);
  if (status.ok()) status = steps_.Allocate(steps.size());
  if (status.ok()) status = Upload<FaultWord>({kNoFault}, &fault_);
  if (!status.ok()) return status;
  AppendLaunch launch;
  launch.formats = &formats_;
  launch.layer = Layer();
  launch.steps = steps_.data();
  launch.num_steps = static_cast<int>(steps.size());
  // Room in the limits, as a captured graph has it.
  launch.max_tokens = *std::max_element(tokens.begin(), tokens.end()) + 3;
  launch.keys = {keys.data(), case_.dtype, tensors[0].head_stride,
                 tensors[0].row_stride};
  launch.values = {values.data(), case_.dtype, tensors[1].head_stride,
                   tensors[1].row_stride};
  launch.fault = fault_.data();
  status = Run(
      steps, [&](cudaStream_t stream) { return LaunchAppend(launch, stream); });
  std::vector<FaultWord> fault;
  if (status.ok()) status = Download(fault_, &fault);
  if (!status.ok()) return status;
  for (int s = 0; s < static_cast<int>(tokens.size()); ++s) {
    host_.Append(s, tokens[s]);
  }
  return StatusOfFault(fault[0]);
}

std::string PagedRun::CheckMemory() {
  std::vector<uint8_t> pages, sidecars;
  Status status = Download(pages_, &pages);
  if (status.ok()) status = Download(sidecars_, &sidecars);
  if (!status.ok()) return status.message();
  host_.ForgetStaleRows(sidecars);
  const std::string error =
      FirstDifference("page", pages, host_.pages(), host_.memory().page_bytes);
  return error.empty()
             ? FirstDifference("sidecar of slot", sidecars, host_.sidecars(),
                               host_.memory().sidecar_bytes)
             : error;
}

std::string PagedRun::CheckGather(int s, int first, int count) {
  HostTensor expected[2];
  DeviceBuffer<uint8_t> out[2];
  MutableHeads heads[2];
  for (int tensor = 0; tensor < 2; ++tensor) {
    HostTensor& to = expected[tensor] = MakeTensor(host_.kv_heads(), count);
    const Status status = Upload(to.bytes, &out[tensor]);
    if (!status.ok()) return status.message();
    heads[tensor] = {out[tensor].data(), case_.dtype, to.head_stride,
                     to.row_stride};
    for (int head = 0; head < host_.kv_heads(); ++head) {
      for (int row = 0; row < count; ++row) {
        const std::vector<float> value =
            host_.ValueAt(s, 2 * head + tensor, first + row);
        for (int c = 0; c < case_.head_dim; ++c) {
          StoreElement(value[c], to.bytes.data(), case_.dtype,
                       head * to.head_stride + row * to.row_stride + c);
        }
      }
    }
  }
  GatherLaunch launch;
  launch.formats = &formats_;
  launch.layer = Layer();
  launch.state = {PagedHost::Slot(s), host_.length(s), 0, 0,
                  host_.packed_floor(s)};
  launch.first = first;
  launch.count = count;
  launch.keys = heads[0];
  launch.values = heads[1];
  const Status status = LaunchGather(launch, nullptr);
  if (!status.ok()) return status.message();
  for (int tensor = 0; tensor < 2; ++tensor) {
    std::vector<uint8_t> got;
    const Status done = Download(out[tensor], &got);
    if (!done.ok()) return done.message();
    const std::string error =
        FirstDifference(tensor == 0 ? "gathered K row" : "gathered V row", got,
                        expected[tensor].bytes,
                        expected[tensor].row_stride *
                            static_cast<int64_t>(ElementSize(case_.dtype)));
    if (!error.empty()) return error;
  }
  return "";
}

float PagedRun::QueryAt(int head, int row, int channel) const {
  const uint64_t bits = SplitMix64(99 + head, row * 1024 + channel);
  const float value =
      static_cast<float>(static_cast<int64_t>(bits) >> 40) / (1 << 22);
  uint32_t stored;
  StoreElement(value, &stored, case_.dtype, 0);
  return LoadElement(&stored, case_.dtype, 0);
}

std::vector<double> PagedRun::Expected(int s, int position, int query_head,
                                       int query_row) const {
  const AttentionParams& params = case_.attention;
  const int kv_head = query_head / (params.query_heads / host_.kv_heads());
  const int first = params.sliding_window > 0
                        ? std::max(0, position + 1 - params.sliding_window)
                        : 0;
  std::vector<double> out(case_.head_dim, 0.0), scores;
  double highest = -INFINITY, sum = 0.0;
  for (int t = first; t <= position; ++t) {
    const std::vector<float> key = host_.ValueAt(s, 2 * kv_head, t);
    double dot = 0.0;
    for (int c = 0; c < case_.head_dim; ++c) {
      dot += double{QueryAt(query_head, query_row, c)} * key[c];
    }
    double score = dot * params.softmax_scale;
    if (params.soft_cap > 0) {
      score = params.soft_cap * std::tanh(score / params.soft_cap);
    }
    scores.push_back(score);
    highest = std::max(highest, score);
  }
  for (int t = first; t <= position; ++t) {
    const double weight = std::exp(scores[t - first] - highest);
    const std::vector<float> value = host_.ValueAt(s, 2 * kv_head + 1, t);
    sum += weight;
    for (int c = 0; c < case_.head_dim; ++c) out[c] += weight * value[c];
  }
  for (double& value : out) value /= sum;
  return out;
}

std::string PagedRun::CheckAttention(const std::vector<int>& tokens) {
  const AttentionParams& params = case_.attention;
  std::vector<SequenceStep> steps = Steps(tokens);
  for (size_t s = 0; s < tokens.size(); ++s) {
    steps[tokens.size() - s].begin -= tokens[s];  // they are there already
  }
  const int rows = steps.back().first_row + steps.back().count;
  HostTensor queries = MakeTensor(params.query_heads, rows);
  for (int head = 0; head < params.query_heads; ++head) {
    for (int row = 0; row < rows; ++row) {
      for (int c = 0; c < case_.head_dim; ++c) {
        StoreElement(QueryAt(head, row, c), queries.bytes.data(), case_.dtype,
                     head * queries.head_stride + row * queries.row_stride + c);
      }
    }
  }
  const HostTensor blank = MakeTensor(params.query_heads, rows);
  DeviceBuffer<uint8_t> in, out, workspace;
  AttentionLaunch launch;
  launch.formats = &formats_;
  launch.layer = Layer();
  launch.num_steps = static_cast<int>(steps.size());
  launch.max_queries = *std::max_element(tokens.begin(), tokens.end());
  launch.params = params;
  launch.num_ctas = case_.num_ctas;
  launch.workspace_bytes = AttentionWorkspaceBytes(
      launch.num_steps, host_.kv_heads(), case_.head_dim, params.query_heads,
      launch.max_queries, launch.num_ctas);
  Status status = Upload(queries.bytes, &in);
  if (status.ok()) status = Upload(blank.bytes, &out);
  if (status.ok()) status = steps_.Allocate(steps.size());
  if (status.ok()) status = workspace.Allocate(launch.workspace_bytes);
  if (!status.ok()) return status.message();
  launch.steps = steps_.data();
  launch.queries = {in.data(), case_.dtype, queries.head_stride,
                    queries.row_stride};
  launch.out = {out.data(), case_.dtype, blank.head_stride, blank.row_stride};
  launch.workspace = workspace.data();
  status = Run(steps, [&](cudaStream_t stream) {
    return LaunchAttention(launch, stream);
  });
  std::vector<uint8_t> got;
  if (status.ok()) status = Download(out, &got);
  if (!status.ok()) return status.message();

  std::vector<uint8_t> rest = got;  // what must stay as it was
  for (size_t i = 0; i < tokens.size(); ++i) {
    const int s = static_cast<int>(i);
    const SequenceStep& step = steps[tokens.size() - i];
    for (int query = 0; query < step.count; ++query) {
      const int row = step.first_row + query;
      for (int head = 0; head < params.query_heads; ++head) {
        const std::vector<double> expected =
            Expected(s, step.begin + query, head, row);
        for (int c = 0; c < case_.head_dim; ++c) {
          const int64_t index =
              head * blank.head_stride + row * blank.row_stride + c;
          const double value = LoadElement(got.data(), case_.dtype, index);
          // fp32's rounding over the sums, then that of the output.
          const double allowed =
              3e-5 + Rounding(case_.dtype) * std::fabs(expected[c]) * 1.01;
          if (!(std::fabs(value - expected[c]) <= allowed)) {
            char text[160];
            std::snprintf(text, sizeof(text),
                          "attention of sequence %d, query %d of %d, head %d, "
                          "channel %d is %g, not %g",
                          s, query, step.count, head, c, value, expected[c]);
            return text;
          }
          std::fill_n(rest.begin() + index * ElementSize(case_.dtype),
                      ElementSize(case_.dtype), uint8_t{0xFF});
        }
      }
    }
  }
  return FirstDifference(
      "between outputs, row", rest, blank.bytes,
      blank.row_stride * static_cast<int64_t>(ElementSize(case_.dtype)));
}

std::string CheckPaged(const PagedCase& paged_case, const PagedRunner& runner) {
  PagedRun run(paged_case, runner);
  const Status started = run.Start();
  if (!started.ok()) return started.message();
  std::vector<int> lengths(paged_case.steps.front().size(), 0);
  lengths[0] = paged_case.packed_floor;
  for (size_t i = 0; i < paged_case.steps.size(); ++i) {
    const std::vector<int>& tokens = paged_case.steps[i];
    const Status appended = run.Append(tokens);
    std::string error = appended.ok() ? run.CheckMemory() : appended.message();
    for (size_t s = 0; s < tokens.size(); ++s) lengths[s] += tokens[s];
    // Everything of one sequence, and a piece of it.
    const int s = static_cast<int>(i % lengths.size());
    if (error.empty()) error = run.CheckGather(s, 0, lengths[s]);
    if (error.empty()) {
      error = run.CheckGather(s, lengths[s] / 3,
                              lengths[s] - lengths[s] / 3 - lengths[s] / 5);
    }
    const int most = *std::max_element(tokens.begin(), tokens.end());
    if (error.empty() && most <= kMaxDecodeQueries) {
      error = run.CheckAttention(tokens);
    }
    if (!error.empty()) return "step " + std::to_string(i) + ": " + error;
  }
  return "";
}

}  // namespace ratequant::kv::cuda
