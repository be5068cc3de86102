#include "kernels/cuda/format_table.h"

#include <array>
#include <cstddef>
#include <string>
#include <utility>

#include "kernels/quantizers/codebook.h"
#include "ratequant/kv/bit_width.h"

namespace ratequant::kv::cuda {
namespace {

// The codebooks of one head_dim, one behind the other.
class CodebookImage {
 public:
  explicit CodebookImage(int head_dim) : head_dim_(head_dim) {}

  void Add(int width) {
    if (offsets_[width] >= 0) return;
    const Codebook& codebook = GetCodebook(head_dim_, width);
    const std::ptrdiff_t entries = std::ptrdiff_t{1} << width;
    offsets_[width] = static_cast<std::ptrdiff_t>(values_.size());
    values_.insert(values_.end(), codebook.thresholds.begin(),
                   codebook.thresholds.begin() + (entries - 1));
    values_.push_back(0.0f);
    values_.insert(values_.end(), codebook.units.begin(),
                   codebook.units.begin() + entries);
  }

  const std::vector<float>& values() const { return values_; }

  // Points `format` to its codebook in a copy of values() at `base`.
  void Connect(const float* base, SectionFormat& format) const {
    format.thresholds = base + offsets_[format.width];
    format.units = format.thresholds + (std::ptrdiff_t{1} << format.width);
  }

 private:
  const int head_dim_;
  std::vector<float> values_;
  std::array<std::ptrdiff_t, kMaxCodeWidth + 1> offsets_ = {-1, -1, -1, -1, -1,
                                                            -1, -1, -1, -1};
};

// The tables of a head_dim's trellises, those of each width once.
class TrellisImage {
 public:
  explicit TrellisImage(int head_dim) : head_dim_(head_dim) {}

  void Add(int width) {
    if (indexes_[width] >= 0) return;
    indexes_[width] = static_cast<std::ptrdiff_t>(tables_.size());
    tables_.push_back(MakeTrellisTables(head_dim_, width));
  }

  const std::vector<TrellisTables>& tables() const { return tables_; }

  // Points `format` to its tables in a copy of tables() at `base`.
  void Connect(const TrellisTables* base, SectionFormat& format) const {
    format.trellis = base + indexes_[format.width];
    format.units = format.trellis->units;
  }

 private:
  const int head_dim_;
  std::vector<TrellisTables> tables_;
  std::array<std::ptrdiff_t, kMaxTrellisWidth + 1> indexes_ = {-1, -1, -1, -1,
                                                               -1};
};

}  // namespace

Status FormatTable::Create(int head_dim, int page_tokens,
                           const std::vector<FormatSpec>& specs,
                           cudaStream_t stream, FormatTable* table) {
  FormatTable fresh;
  fresh.head_dim_ = head_dim;
  fresh.page_tokens_ = page_tokens;
  if (specs.empty()) return InvalidArgument("a format table without formats");
  std::vector<SectionFormat> formats;
  CodebookImage codebooks(head_dim);
  TrellisImage trellises(head_dim);
  for (size_t i = 0; i < specs.size(); ++i) {
    Status status = CheckFormat(specs[i], head_dim, page_tokens);
    if (!status.ok()) {
      return {status.code(),
              "format " + std::to_string(i) + ": " + status.message()};
    }
    const FormatSpec& spec = specs[i];
    formats.push_back(MakeSectionFormat(spec, head_dim, page_tokens));
    fresh.layouts_.push_back(MakeSectionLayout(
        spec.quantizer, spec.tensor, spec.width, head_dim, page_tokens));
    if (formats.back().kind != CodeKind::kCodebookRow) continue;
    if (formats.back().has_trellis()) {
      trellises.Add(spec.width);
    } else {
      codebooks.Add(spec.width);
    }
  }

  Status status = fresh.codebooks_.Allocate(codebooks.values().size());
  if (status.ok()) {
    status = fresh.trellises_.Allocate(trellises.tables().size());
  }
  if (status.ok()) status = fresh.formats_.Allocate(formats.size());
  if (!status.ok()) return status;
  for (SectionFormat& format : formats) {
    if (format.kind != CodeKind::kCodebookRow) continue;
    if (format.has_trellis()) {
      trellises.Connect(fresh.trellises_.data(), format);
    } else {
      codebooks.Connect(fresh.codebooks_.data(), format);
    }
  }
  status = fresh.codebooks_.CopyFrom(codebooks.values().data(), stream);
  if (status.ok()) {
    status = fresh.trellises_.CopyFrom(trellises.tables().data(), stream);
  }
  if (status.ok()) status = fresh.formats_.CopyFrom(formats.data(), stream);
  if (status.ok()) {
    status = StatusOfCuda(cudaStreamSynchronize(stream),
                          "copying a format table to the device");
  }
  if (status.ok()) *table = std::move(fresh);
  return status;
}

}  // namespace ratequant::kv::cuda
