#include <cmath>
#include <string>
#include <tuple>

#include "tests/kernels/cuda/paged_case.h"

namespace ratequant::kv::cuda {
namespace {

constexpr DType kDTypes[] = {DType::kFloat16, DType::kBFloat16,
                             DType::kFloat32};

FormatSpec Format(QuantizerKind kind, int group_size, Tensor tensor,
                  int width) {
  FormatSpec format;
  format.quantizer.kind = kind;
  format.quantizer.group_size = group_size;
  format.quantizer.seed = tensor == Tensor::kKey ? 7 : 0x9E3779B97F4A7C15u;
  format.tensor = tensor;
  format.width = width;
  return format;
}

// A head for each quantizer that head_dim allows, with another one for V, at
// another width; kivi's groups take turns.
std::vector<FormatSpec> Groups(int head_dim, int page_tokens, int width,
                               int turn) {
  constexpr QuantizerKind kKinds[] = {
      QuantizerKind::kRtn, QuantizerKind::kKivi, QuantizerKind::kQuarot,
      QuantizerKind::kTurboquant, QuantizerKind::kTcq};
  constexpr int kWidths[] = {1, 2, 3, 4, 5, 6, 7, 8, 16};
  const bool rotates = (head_dim & (head_dim - 1)) == 0;
  const int kinds = rotates ? 5 : 2;
  int group_size = 32 >> (turn % 3 == 2 ? turn % 2 + 1 : 0);
  while (head_dim % group_size != 0 || page_tokens % group_size != 0) {
    group_size /= 2;
  }
  std::vector<FormatSpec> groups;
  for (int head = 0; head < kinds; ++head) {
    groups.push_back(Format(kKinds[head], group_size, Tensor::kKey, width));
    groups.push_back(Format(kKinds[(head + turn) % kinds], group_size,
                            Tensor::kValue, kWidths[(width + turn) % 9]));
  }
  return groups;
}

// Sinks, window, page size, GQA, queries, limits and chunks take turns, in
// periods that differ: together they meet in many ways.
PagedCase MakeCase(int head_dim, int width, int turn) {
  static constexpr int kPages[] = {32, 16, 64};
  static constexpr int kSinks[] = {4, 0, 3, 40};
  static constexpr int kWindows[] = {32, 5, 0, 17};
  static constexpr int kHeadsPerKv[] = {1, 4, 3, 2, 8};
  static constexpr int kCtas[] = {3, 1, 7, 40};
  PagedCase c;
  c.head_dim = head_dim;
  c.page_tokens = kPages[turn % 3];
  c.sink_tokens = kSinks[turn % 4];
  c.window = kWindows[turn / 2 % 4];
  c.groups = Groups(head_dim, c.page_tokens, width, turn);
  c.dtype = kDTypes[turn % 3];
  c.attention.query_heads =
      static_cast<int>(c.groups.size()) / 2 * kHeadsPerKv[turn % 5];
  c.attention.softmax_scale =
      1.0f / std::sqrt(static_cast<float>(head_dim)) * 0.5f;
  if (turn % 4 == 1) c.attention.soft_cap = 3.0f;
  if (turn % 5 == 2) c.attention.sliding_window = 29;
  c.num_ctas = kCtas[turn / 3 % 4];
  // A prompt and a decode step, several queries, a chunk, a step again.
  switch (turn % 3) {
    case 0:
      c.steps = {{41, 70}, {1, 1}, {0, 3}, {33, 9}, {2, 8}};
      break;
    case 1:
      c.steps = {{3, 97}, {8, 1}, {64, 0}, {1, 5}};
      break;
    default:
      c.steps = {{1, 31}, {1, 1}, {75, 2}, {4, 1}};
      break;
  }
  c.name.append("d").append(std::to_string(head_dim));
  c.name.append("_w").append(std::to_string(width));
  c.name.append("_").append(std::to_string(turn));
  return c;
}

// Sequence 0 begins with a prefix that is packed whatever the window.
PagedCase MakeForkCase(int head_dim, int width) {
  PagedCase c = MakeCase(head_dim, width, 9);
  c.name += "_fork";
  c.page_tokens = 32;
  c.groups = Groups(head_dim, 32, width, 9);
  c.sink_tokens = 4;
  c.window = 20;
  c.packed_floor = 64;
  c.steps = {{1, 50}, {5, 2}, {40, 1}, {2, 2}};
  return c;
}

}  // namespace

std::vector<PagedCase> PagedCases(Coverage coverage) {
  std::vector<PagedCase> cases;
  if (coverage == Coverage::kSome) {
    for (const auto& [head_dim, width, turn] :
         {std::tuple{64, 3, 0}, {128, 4, 10}, {96, 8, 6}}) {
      cases.push_back(MakeCase(head_dim, width, turn));
    }
    return cases;
  }
  int turn = 0;
  for (const int width : {1, 2, 3, 4, 5, 6, 7, 8, 16}) {
    for (const int head_dim : {64, 80, 96, 128, 256}) {
      cases.push_back(MakeCase(head_dim, width, turn++));
    }
  }
  cases.push_back(MakeForkCase(128, 3));
  cases.push_back(MakeForkCase(64, 16));
  return cases;
}

}  // namespace ratequant::kv::cuda
