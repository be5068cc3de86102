#include <algorithm>
#include <iterator>

#include "kernels/quantizers/element.h"
#include "kernels/quantizers/rotation.h"
#include "tests/kernels/cuda/section_batch.h"

namespace ratequant::kv::cuda {
namespace {

std::vector<FormatSpec> FormatsOf(int head_dim, int page_tokens,
                                  const std::vector<int>& widths) {
  std::vector<QuantizerSpec> quantizers;
  quantizers.push_back({.kind = QuantizerKind::kRtn});
  for (const int group : {8, 16, 32, 64, 128}) {
    quantizers.push_back({.kind = QuantizerKind::kKivi, .group_size = group});
  }
  quantizers.push_back({.kind = QuantizerKind::kQuarot});
  quantizers.push_back(
      {.kind = QuantizerKind::kQuarot, .seed = 0x9E3779B97F4A7C15u});
  quantizers.push_back({.kind = QuantizerKind::kTurboquant});
  quantizers.push_back({.kind = QuantizerKind::kTurboquant,
                        .seed = 7,
                        .key_scale = RowScale::kUnbiased,
                        .value_scale = RowScale::kL2});
  quantizers.push_back({.kind = QuantizerKind::kTcq});
  quantizers.push_back({.kind = QuantizerKind::kTcq,
                        .seed = 7,
                        .key_scale = RowScale::kUnbiased,
                        .value_scale = RowScale::kL2});
  std::vector<FormatSpec> formats;
  for (const int width : widths) {
    for (const Tensor tensor : {Tensor::kKey, Tensor::kValue}) {
      for (const QuantizerSpec& quantizer : quantizers) {
        const FormatSpec format{quantizer, tensor, width};
        if (CheckFormat(format, head_dim, page_tokens).ok()) {
          formats.push_back(format);
        }
        if (width == 16) break;  // the quantizer doesn't matter
      }
    }
  }
  return formats;
}

// Ranges of rows and sinks that take turns: whole pages, odd pieces, one row,
// none, sinks that cover a part or all.
SectionCase MakeSectionCase(const FormatSpec& format, size_t turn, int head_dim,
                            int page_tokens) {
  struct Piece {
    double first, count;  // of a page
    int skip_tokens;
  };
  static constexpr Piece kPieces[] = {
      {0.00, 1.00, 0}, {0.00, 1.00, 5},    {0.22, 0.61, 0},  {0.00, 0.40, 3},
      {0.95, 0.01, 0}, {0.50, 0.50, 1000}, {0.35, 0.65, 12}, {0.50, 0.00, 0}};
  const Piece& piece = kPieces[turn % std::size(kPieces)];
  const int granule = format.width == 16
                          ? 1
                          : MakeParamLayout(format.quantizer, format.tensor,
                                            head_dim, page_tokens)
                                .block_tokens;
  const auto rows = [&](double part) {
    const int exact = static_cast<int>(part * page_tokens + 0.999);
    return std::min((exact + granule - 1) / granule * granule, page_tokens);
  };
  SectionCase section{format, rows(piece.first), rows(piece.count),
                      piece.skip_tokens};
  section.first = std::min(section.first, page_tokens - granule);
  section.count = std::min(section.count, page_tokens - section.first);
  return section;
}

const char* DTypeName(DType dtype) {
  return dtype == DType::kFloat32   ? "fp32"
         : dtype == DType::kFloat16 ? "fp16"
                                    : "bf16";
}

BatchCase MakeBatch(int head_dim, int page_tokens, DType dtype,
                    const std::vector<int>& widths) {
  BatchCase batch;
  batch.name.append("d").append(std::to_string(head_dim));
  batch.name.append("_p").append(std::to_string(page_tokens));
  batch.name.append("_").append(DTypeName(dtype));
  batch.head_dim = head_dim;
  batch.page_tokens = page_tokens;
  batch.dtype = dtype;
  // Some batches have room between their rows.
  batch.row_stride = head_dim + (head_dim % 16 == 0 ? 8 : 0);
  size_t turn = static_cast<size_t>(head_dim) / 8;
  for (const FormatSpec& format : FormatsOf(head_dim, page_tokens, widths)) {
    batch.sections.push_back(
        MakeSectionCase(format, turn++, head_dim, page_tokens));
  }
  return batch;
}

// A float from a counter, in [-1, 1).
float Noise(uint64_t seed, uint64_t index) {
  return static_cast<float>(static_cast<int64_t>(SplitMix64(seed, index)) >>
                            40) /
         static_cast<float>(1 << 23);
}

// Row number `row`: mostly noise with a few large channels, as K has them, and
// every so often what quantizers stumble over.
float ValueAt(uint64_t seed, int row, int channel) {
  const uint64_t index = static_cast<uint64_t>(row) * 1024 + channel;
  switch (SplitMix64(seed, 1u << 20 | static_cast<unsigned>(row)) % 12) {
    case 0:
      return channel % 2 == 0 ? 0.0f : -0.0f;
    case 1:
      return 0.37109375f;  // constant
    case 2:
      return Noise(seed, index) * 1e-7f;  // below fp16's normal numbers
    case 3:
      return channel % 3 == 0 ? kMaxHalf : -kMaxHalf;
    case 4:
      return channel == 3 ? -2.5f : 0.0f;  // one-hot
    default:
      break;
  }
  const float sum =
      Noise(seed, index) + Noise(seed + 1, index) + Noise(seed + 2, index);
  return sum * (channel % 29 == 4 ? 20.0f : 1.0f);
}

}  // namespace

std::vector<BatchCase> BatchCases(Coverage coverage) {
  constexpr DType kDTypes[] = {DType::kFloat16, DType::kBFloat16,
                               DType::kFloat32};
  std::vector<BatchCase> batches;
  if (coverage == Coverage::kSome) {
    const std::vector<int> widths = {1, 3, 4, 16};
    batches.push_back(MakeBatch(64, 32, DType::kFloat16, widths));
    batches.push_back(MakeBatch(80, 16, DType::kBFloat16, widths));
    batches.push_back(MakeBatch(128, 32, DType::kFloat32, {2, 5, 8}));
    batches.push_back(MakeBatch(512, 16, DType::kFloat16, {7}));
    return batches;
  }
  const std::vector<int> widths = {1, 2, 3, 4, 5, 6, 7, 8, 16};
  for (const int head_dim : {64, 80, 96, 128, 256}) {
    for (const DType dtype : kDTypes) {
      batches.push_back(MakeBatch(head_dim, 32, dtype, widths));
    }
  }
  // Every number of lanes per row, idle lanes, two octets a lane; other pages.
  int turn = 0;
  for (const int head_dim : {8, 16, 24, 32, 40, 192, 264, 384, 512}) {
    batches.push_back(
        MakeBatch(head_dim, 16, kDTypes[turn++ % 3], {1, 3, 4, 6, 8, 16}));
  }
  batches.push_back(MakeBatch(64, 128, DType::kFloat16, {2, 5}));
  batches.push_back(MakeBatch(128, 128, DType::kBFloat16, {4}));
  batches.push_back(MakeBatch(96, 64, DType::kFloat32, {3, 7}));
  return batches;
}

std::vector<uint8_t> RowsOf(const BatchCase& batch, int index) {
  const SectionCase& section = batch.sections[index];
  const size_t element = ElementSize(batch.dtype);
  std::vector<uint8_t> rows(section.count * batch.row_stride * element, 0xFF);
  for (int row = 0; row < section.count; ++row) {
    for (int c = 0; c < batch.head_dim; ++c) {
      StoreElement(ValueAt(index * 977 + 1, section.first + row, c),
                   rows.data(), batch.dtype, row * batch.row_stride + c);
      // bf16 may round up beyond what fp16 holds.
      if (IsOutsideHalf(LoadElement(rows.data(), batch.dtype,
                                    row * batch.row_stride + c))) {
        StoreElement(65024.0f, rows.data(), batch.dtype,
                     row * batch.row_stride + c);
      }
    }
  }
  return rows;
}

}  // namespace ratequant::kv::cuda
