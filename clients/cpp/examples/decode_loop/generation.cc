#include "clients/cpp/examples/decode_loop/generation.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ratequant::examples {
namespace {

constexpr uint64_t kFnvStart = 14695981039346656037u;
constexpr uint64_t kFnvPrime = 1099511628211u;

void AddToChecksum(const float* values, int count, uint64_t* checksum) {
  for (int i = 0; i < count; ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, &values[i], sizeof(bits));
    *checksum = (*checksum ^ bits) * kFnvPrime;
  }
}

absl::Status CheckGeometry(const kv::KvGeometry& map,
                           const kv::KvGeometry& model) {
  if (map.layers == model.layers && map.kv_heads == model.kv_heads &&
      map.head_dim == model.head_dim) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "the bit map is for ", map.layers, " layers of ", map.kv_heads,
      " KV heads with head_dim ", map.head_dim, "; the capture has ",
      model.layers, " of ", model.kv_heads, " with ", model.head_dim));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Generation>> Generation::Create(
    const replay::CaptureFile& capture,
    std::shared_ptr<const client::LoadedBitMap> map, int max_sequences,
    int decode_tokens) {
  const replay::CaptureInfo& info = capture.info();
  kv::KvCacheConfig config = map->config;
  const absl::Status geometry = CheckGeometry(config.geometry, info.geometry);
  if (!geometry.ok()) return geometry;
  config.geometry.query_heads = info.geometry.query_heads;
  const int pages = (info.tokens + config.page_tokens - 1) / config.page_tokens;
  auto cache = kv::KvCache::Create(
      config, {.num_pages = int64_t{1} * pages * max_sequences,
               .max_sequences = max_sequences,
               .max_tokens = info.tokens});
  if (!cache.ok()) return cache.status();
  auto batch = (*cache)->MakeBatch(max_sequences, 1);
  if (!batch.ok()) return batch.status();
  return std::unique_ptr<Generation>(
      new Generation(capture, std::move(map), max_sequences, decode_tokens,
                     *std::move(cache), *std::move(batch)));
}

Generation::Generation(const replay::CaptureFile& capture,
                       std::shared_ptr<const client::LoadedBitMap> map,
                       int max_sequences, int decode_tokens,
                       std::unique_ptr<kv::KvCache> cache,
                       std::unique_ptr<kv::KvBatch> batch)
    : capture_(capture),
      map_(std::move(map)),
      decode_tokens_(decode_tokens),
      cache_(std::move(cache)),
      batch_(std::move(batch)),
      keys_(capture.info().geometry.kv_heads, max_sequences,
            capture.info().geometry.head_dim, capture.info().dtype),
      values_(capture.info().geometry.kv_heads, max_sequences,
              capture.info().geometry.head_dim, capture.info().dtype),
      queries_(capture.info().geometry.query_heads, max_sequences,
               capture.info().geometry.head_dim, capture.info().dtype),
      output_(size_t(1) * capture.info().geometry.query_heads * max_sequences *
              capture.info().geometry.head_dim),
      max_sequences_(max_sequences) {}

absl::Status Generation::Admit(int64_t request, int sequence) {
  const auto id = cache_->AddSequence();
  if (!id.ok()) return id.status();
  const absl::Status prefilled = Prefill(*id, sequence);
  if (!prefilled.ok()) {
    cache_->RemoveSequence(*id).IgnoreError();
    return prefilled;
  }
  running_.push_back({.id = *id,
                      .token = capture_.info().tokens - decode_tokens_,
                      .result = {.request = request,
                                 .sequence = sequence,
                                 .etag = map_->etag,
                                 .checksum = kFnvStart}});
  return absl::OkStatus();
}

absl::Status Generation::Prefill(kv::KvCache::SequenceId id, int sequence) {
  const int tokens = capture_.info().tokens - decode_tokens_;
  for (int layer = 0; layer < capture_.info().geometry.layers; ++layer) {
    const absl::Status status =
        cache_->Append(id, layer, tokens, capture_.keys(sequence, layer),
                       capture_.values(sequence, layer));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Finished>> Generation::Step() {
  if (running_.empty()) return std::vector<Finished>();
  std::vector<kv::BatchEntry> entries;
  for (const Running& sequence : running_) {
    entries.push_back({.sequence = sequence.id, .tokens = 1});
  }
  absl::Status status = cache_->Prepare(entries, *batch_);
  for (int layer = 0; status.ok() && layer < capture_.info().geometry.layers;
       ++layer) {
    status = DecodeLayer(layer);
  }
  if (!status.ok()) return status;
  return Retire();
}

// Keys, values and queries come from the recording, where an engine would run
// its model.
absl::Status Generation::DecodeLayer(int layer) {
  for (int row = 0; row < running(); ++row) {
    const int sequence = running_[row].result.sequence;
    const int token = running_[row].token;
    keys_.Set(row, capture_.keys(sequence, layer), token);
    values_.Set(row, capture_.values(sequence, layer), token);
    queries_.Set(row, capture_.queries(sequence, layer), token);
  }
  absl::Status status =
      cache_->Append(*batch_, layer, keys_.heads(), values_.heads());
  if (!status.ok()) return status;
  const kv::KvGeometry& geometry = capture_.info().geometry;
  const int64_t head_stride = int64_t{1} * max_sequences_ * geometry.head_dim;
  status = cache_->Attend(*batch_, layer, capture_.info().attention[layer],
                          queries_.heads(),
                          {.data = output_.data(),
                           .head_stride = head_stride,
                           .row_stride = geometry.head_dim});
  if (!status.ok()) return status;
  for (int row = 0; row < running(); ++row) {
    for (int head = 0; head < geometry.query_heads; ++head) {
      AddToChecksum(&output_[head * head_stride + row * geometry.head_dim],
                    geometry.head_dim, &running_[row].result.checksum);
    }
  }
  return absl::OkStatus();
}

// Ends the step: sequences that are through leave the cache.
absl::StatusOr<std::vector<Finished>> Generation::Retire() {
  std::vector<Finished> finished;
  std::vector<Running> still;
  for (Running& sequence : running_) {
    ++sequence.result.tokens;
    if (++sequence.token < capture_.info().tokens) {
      still.push_back(std::move(sequence));
      continue;
    }
    const absl::Status removed = cache_->RemoveSequence(sequence.id);
    if (!removed.ok()) return removed;
    finished.push_back(std::move(sequence.result));
  }
  running_ = std::move(still);
  return finished;
}

}  // namespace ratequant::examples
