#include "clients/replay/cache_run.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace ratequant::replay {
namespace {

std::string GeometryText(const kv::KvGeometry& g) {
  return absl::StrCat(g.layers, " layers of ", g.kv_heads,
                      " KV heads with head_dim ", g.head_dim);
}

absl::Status CheckGeometry(const kv::KvGeometry& map, const CaptureInfo& info) {
  const kv::KvGeometry& capture = info.geometry;
  const bool same =
      map.layers == capture.layers && map.kv_heads == capture.kv_heads &&
      map.head_dim == capture.head_dim &&
      (map.query_heads == 0 || map.query_heads == capture.query_heads);
  if (same) return absl::OkStatus();
  const auto queries = [](int heads) {
    return heads == 0 ? "" : absl::StrCat(" and ", heads, " query heads");
  };
  return absl::InvalidArgumentError(absl::StrCat(
      "the bit map is for ", GeometryText(map), queries(map.query_heads),
      "; the capture, of ", info.model, ", has ", GeometryText(capture),
      queries(capture.query_heads)));
}

// The same heads from row `first` on.
kv::ConstHeads From(kv::ConstHeads heads, int first) {
  const int64_t bytes = first * heads.row_stride *
                        static_cast<int64_t>(kv::ElementSize(heads.dtype));
  heads.data = static_cast<const char*>(heads.data) + bytes;
  return heads;
}

double PerSecond(int64_t tokens, absl::Duration time) {
  return static_cast<double>(tokens) /
         std::max(absl::ToDoubleSeconds(time), 1e-9);
}

}  // namespace

absl::StatusOr<std::unique_ptr<CacheRun>> CacheRun::Create(
    const CaptureFile& capture, const ReplayMap& map, int decode_tokens,
    kv::LoopRunner& loops) {
  const CaptureInfo& info = capture.info();
  const absl::Status geometry = CheckGeometry(map.config.geometry, info);
  if (!geometry.ok()) return geometry;
  ReplayMap used = map;
  used.config.geometry.query_heads = info.geometry.query_heads;
  // Says itself what is wrong with the page size, before it is divided by.
  const auto layout = kv::ComputeKvLayout(used.config);
  if (!layout.ok()) return layout.status();
  const int page_tokens = used.config.page_tokens;
  auto cache = kv::KvCache::Create(
      used.config, {.num_pages = (info.tokens + page_tokens - 1) / page_tokens,
                    .max_sequences = 1,
                    .max_tokens = info.tokens});
  if (!cache.ok()) return cache.status();
  auto batch = (*cache)->MakeBatch(1, 1);
  if (!batch.ok()) return batch.status();
  return std::unique_ptr<CacheRun>(new CacheRun(capture, used, decode_tokens,
                                                loops, *std::move(cache),
                                                *std::move(batch)));
}

CacheRun::CacheRun(const CaptureFile& capture, const ReplayMap& map,
                   int decode_tokens, kv::LoopRunner& loops,
                   std::unique_ptr<kv::KvCache> cache,
                   std::unique_ptr<kv::KvBatch> batch)
    : capture_(capture),
      map_(map),
      decode_tokens_(decode_tokens),
      on_{.loops = &loops},
      cache_(std::move(cache)),
      batch_(std::move(batch)),
      output_(map.config.geometry.query_heads * map.config.geometry.head_dim),
      errors_(map.config.geometry.layers) {}

absl::Status CacheRun::Run(int sequence, const ExactOutputs& exact) {
  const absl::StatusOr<kv::KvCache::SequenceId> id = cache_->AddSequence();
  if (!id.ok()) return id.status();
  absl::Status status = RunSteps(sequence, *id, exact);
  if (status.ok()) {
    // Equal for all sequences: they are equally long.
    const absl::StatusOr<int64_t> bytes = cache_->AllocatedBytes(*id);
    status = bytes.status();
    if (bytes.ok()) allocated_bytes_ = *bytes;
  }
  status.Update(cache_->RemoveSequence(*id, on_));
  ++sequences_;
  if (status.ok()) return status;
  // The cache counts sequences in its own way.
  return absl::Status(status.code(),
                      absl::StrCat("sequence ", sequence,
                                   " of the capture: ", status.message()));
}

absl::Status CacheRun::RunSteps(int sequence, kv::KvCache::SequenceId id,
                                const ExactOutputs& exact) {
  absl::Status status = Prefill(sequence, id);
  const int tokens = capture_.info().tokens;
  for (int token = tokens - decode_tokens_; status.ok() && token < tokens;
       ++token) {
    status = cache_->Prepare({{.sequence = id, .tokens = 1}}, *batch_, on_);
    for (int layer = 0; status.ok() && layer < map_.config.geometry.layers;
         ++layer) {
      status = Decode(sequence, token, layer, exact[layer]);
    }
  }
  return status;
}

absl::Status CacheRun::Prefill(int sequence, kv::KvCache::SequenceId id) {
  const int64_t tokens = capture_.info().tokens - decode_tokens_;
  const absl::Time start = absl::Now();
  for (int layer = 0; layer < map_.config.geometry.layers; ++layer) {
    const absl::Status status =
        cache_->Append(id, layer, tokens, capture_.keys(sequence, layer),
                       capture_.values(sequence, layer), on_);
    if (!status.ok()) return status;
  }
  append_time_ += absl::Now() - start;
  return absl::OkStatus();
}

absl::Status CacheRun::Decode(int sequence, int token, int layer,
                              const std::vector<double>& exact) {
  absl::Status status = cache_->Append(
      *batch_, layer, From(capture_.keys(sequence, layer), token),
      From(capture_.values(sequence, layer), token), on_);
  if (!status.ok()) return status;
  const int64_t head_dim = map_.config.geometry.head_dim;
  const absl::Time start = absl::Now();
  status = cache_->Attend(
      *batch_, layer, capture_.info().attention[layer],
      From(capture_.queries(sequence, layer), token),
      {.data = output_.data(), .head_stride = head_dim, .row_stride = head_dim},
      on_);
  attend_time_ += absl::Now() - start;
  if (!status.ok()) return status;
  const int step = token - (capture_.info().tokens - decode_tokens_);
  return AddError(token, layer, &exact[step * output_.size()]);
}

absl::Status CacheRun::AddError(int token, int layer, const double* exact) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < output_.size(); ++i) {
    difference += (output_[i] - exact[i]) * (output_[i] - exact[i]);
    norm += exact[i] * exact[i];
  }
  const double error = difference == 0 ? 0 : std::sqrt(difference / norm);
  if (!std::isfinite(error)) {
    return absl::DataLossError(absl::StrCat(
        "layer ", layer, ", token ", token,
        ": the attention output has no error relative to its size: it is zero, "
        "or a query isn't finite"));
  }
  errors_[layer].sum += error;
  errors_[layer].worst = std::max(errors_[layer].worst, error);
  return absl::OkStatus();
}

ReplayResult CacheRun::Result() const {
  const kv::KvGeometry& g = map_.config.geometry;
  const int64_t decoded = int64_t{sequences_} * decode_tokens_;
  const int64_t tokens = capture_.info().tokens;
  ReplayResult result;
  result.name = map_.name;
  result.allocated_bytes = allocated_bytes_;
  for (const kv::GroupFormat& group : map_.config.groups) {
    result.code_bits += group.width;
  }
  result.code_bits /= static_cast<double>(map_.config.groups.size());
  const double elements = 2.0 * g.layers * g.kv_heads * g.head_dim * tokens;
  result.effective_bits =
      8.0 * static_cast<double>(allocated_bytes_) / elements;
  for (const ErrorSum& error : errors_) {
    result.layers.push_back({.mean = error.sum / static_cast<double>(decoded),
                             .worst = error.worst});
  }
  result.append_tokens_per_second =
      PerSecond(sequences_ * (tokens - decode_tokens_), append_time_);
  result.attend_tokens_per_second = PerSecond(decoded, attend_time_);
  return result;
}

}  // namespace ratequant::replay
