#include "ratequant/kv/kv_cache.h"

#include <map>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cache/layer_store.h"

namespace ratequant::kv {
namespace {

// More tokens than memory holds, few enough that no offset overflows.
constexpr int64_t kMaxLength = int64_t{1} << 40;

// One codec for all groups of equal format.
class CodecSet {
 public:
  CodecSet(const KvCacheConfig& config, Backend backend)
      : config_(config), backend_(backend) {}

  absl::StatusOr<std::shared_ptr<const Codec>> Get(const GroupFormat& format,
                                                   Tensor tensor) {
    const QuantizerSpec& q = format.quantizer;
    const Key key = format.width == kFp16Width
                        ? Key{0, 0, 0, 0, 0, tensor, format.width}
                        : Key{static_cast<int>(q.kind),
                              q.group_size,
                              q.seed,
                              static_cast<int>(q.key_scale),
                              static_cast<int>(q.value_scale),
                              tensor,
                              format.width};
    std::shared_ptr<const Codec>& codec = codecs_[key];
    if (codec == nullptr) {
      absl::StatusOr<std::unique_ptr<Codec>> made =
          Codec::Create({q, tensor, format.width, config_.geometry.head_dim,
                         config_.page_tokens, backend_});
      if (!made.ok()) return made.status();
      codec = *std::move(made);
    }
    return codec;
  }

 private:
  // kind, group size, seed, scales of K and V, tensor, width
  using Key = std::tuple<int, int32_t, uint64_t, int, int, Tensor, int>;

  const KvCacheConfig& config_;
  const Backend backend_;
  std::map<Key, std::shared_ptr<const Codec>> codecs_;
};

template <typename Heads>
absl::Status CheckHeads(absl::string_view name, const Heads& heads,
                        const KvGeometry& geometry, int64_t tokens) {
  const auto invalid = [name](const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": ", what...));
  };
  const size_t size = ElementSize(heads.dtype);
  if (size == 0) {
    return invalid("dtype ", static_cast<int>(heads.dtype),
                   " is not supported; supported are 0 (float32), 1 (float16) "
                   "and 2 (bfloat16)");
  }
  if (reinterpret_cast<uintptr_t>(heads.data) % size != 0) {
    return invalid("the address isn't a multiple of the element size ", size);
  }
  if (tokens > 1 && heads.row_stride < geometry.head_dim) {
    return invalid("row stride ", heads.row_stride, " is below head_dim ",
                   geometry.head_dim);
  }
  if (geometry.kv_heads > 1 && heads.head_stride < geometry.head_dim) {
    return invalid("head stride ", heads.head_stride, " is below head_dim ",
                   geometry.head_dim);
  }
  return absl::OkStatus();
}

// Outputs of two heads may lie one behind the other or interleaved row by row,
// but not on top of each other.
absl::Status CheckDisjoint(absl::string_view name, const MutableHeads& heads,
                           const KvGeometry& geometry, int64_t tokens) {
  if (tokens <= 1 || geometry.kv_heads == 1 ||
      heads.head_stride >=
          heads.row_stride * (tokens - 1) + geometry.head_dim ||
      heads.row_stride >=
          heads.head_stride * (geometry.kv_heads - 1) + geometry.head_dim) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      name, ": with row stride ", heads.row_stride, " and head stride ",
      heads.head_stride, " the rows of ", geometry.kv_heads, " heads and ",
      tokens, " tokens overlap"));
}

// With a single row the stride is never used, and callers may pass anything.
template <typename Heads>
Heads Normalized(Heads heads, int64_t tokens, int head_dim) {
  if (tokens <= 1) heads.row_stride = head_dim;
  return heads;
}

class KvCacheImpl : public KvCache {
 public:
  KvCacheImpl(const KvCacheConfig& config, KvLayout layout)
      : config_(config), layout_(std::move(layout)) {}

  absl::Status Init(Backend backend) {
    CodecSet codecs(config_, backend);
    const int groups = config_.geometry.kv_heads * 2;
    for (int layer = 0; layer < config_.geometry.layers; ++layer) {
      std::vector<std::shared_ptr<const Codec>> of_layer;
      for (int g = 0; g < groups; ++g) {
        absl::StatusOr<std::shared_ptr<const Codec>> codec =
            codecs.Get(config_.groups[layer * groups + g],
                       g % 2 == 0 ? Tensor::kKey : Tensor::kValue);
        if (!codec.ok()) return codec.status();
        of_layer.push_back(*std::move(codec));
      }
      plans_.push_back(std::make_unique<LayerPlan>(
          &config_, layer, &layout_.layers[layer], std::move(of_layer)));
    }
    return absl::OkStatus();
  }

  const KvCacheConfig& config() const override { return config_; }
  const KvLayout& layout() const override { return layout_; }

  SequenceId AddSequence() override {
    auto sequence = std::make_unique<Sequence>();
    sequence->reserve(plans_.size());
    for (const auto& plan : plans_) sequence->emplace_back(plan.get());
    std::unique_lock<std::shared_mutex> lock(mutex_);
    const SequenceId id = next_id_++;
    sequences_.emplace(id, std::move(sequence));
    return id;
  }

  absl::Status RemoveSequence(SequenceId id) override {
    std::unique_ptr<Sequence> removed;  // freed after the lock
    std::unique_lock<std::shared_mutex> lock(mutex_);
    const auto it = sequences_.find(id);
    if (it == sequences_.end()) return UnknownSequence(id);
    removed = std::move(it->second);
    sequences_.erase(it);
    lock.unlock();
    return absl::OkStatus();
  }

  absl::Status Append(SequenceId id, int layer, int64_t tokens,
                      const ConstHeads& keys,
                      const ConstHeads& values) override {
    absl::StatusOr<LayerStore*> store = Find(id, layer);
    if (!store.ok()) return store.status();
    if (tokens < 0 || tokens > kMaxLength - (*store)->length()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "can't append ", tokens, " tokens to ", (*store)->length(),
          "; a sequence holds 0 to ", kMaxLength, " tokens"));
    }
    if (tokens == 0) return absl::OkStatus();
    if (keys.data == nullptr || values.data == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(keys.data == nullptr ? "keys" : "values",
                       ": null, with ", tokens, " tokens to append"));
    }
    const KvGeometry& g = config_.geometry;
    absl::Status status = CheckHeads("keys", keys, g, tokens);
    if (status.ok()) status = CheckHeads("values", values, g, tokens);
    if (!status.ok()) return status;
    return (*store)->Append(tokens, Normalized(keys, tokens, g.head_dim),
                            Normalized(values, tokens, g.head_dim));
  }

  absl::Status Gather(SequenceId id, int layer, int64_t first, int64_t count,
                      const MutableHeads& keys,
                      const MutableHeads& values) const override {
    absl::StatusOr<LayerStore*> store = Find(id, layer);
    if (!store.ok()) return store.status();
    const int64_t length = (*store)->length();
    if (first < 0 || count < 0 || first > length - count) {
      return absl::OutOfRangeError(absl::StrCat("tokens [", first, ", ", first,
                                                " + ", count, ") of layer ",
                                                layer, ", which has ", length));
    }
    if (count == 0) return absl::OkStatus();
    for (const bool is_key : {true, false}) {
      const MutableHeads& heads = is_key ? keys : values;
      const absl::string_view name = is_key ? "keys" : "values";
      if (heads.data == nullptr) continue;
      absl::Status status = CheckHeads(name, heads, config_.geometry, count);
      if (status.ok()) {
        status = CheckDisjoint(name, heads, config_.geometry, count);
      }
      if (!status.ok()) return status;
    }
    const int head_dim = config_.geometry.head_dim;
    return (*store)->Gather(first, count, Normalized(keys, count, head_dim),
                            Normalized(values, count, head_dim));
  }

  absl::StatusOr<absl::Span<const uint8_t>> Section(
      SequenceId id, int layer, int group, int64_t page) const override {
    absl::StatusOr<LayerStore*> store = Find(id, layer);
    if (!store.ok()) return store.status();
    return (*store)->Section(group, page);
  }

  absl::StatusOr<int64_t> Length(SequenceId id, int layer) const override {
    absl::StatusOr<LayerStore*> store = Find(id, layer);
    if (!store.ok()) return store.status();
    return (*store)->length();
  }

  absl::StatusOr<int64_t> AllocatedBytes(SequenceId id) const override {
    absl::StatusOr<Sequence*> sequence = Find(id);
    if (!sequence.ok()) return sequence.status();
    int64_t bytes = 0;
    for (const LayerStore& layer : **sequence) bytes += layer.AllocatedBytes();
    return bytes;
  }

  int64_t FreePageBytes() const override {
    int64_t bytes = 0;
    for (const auto& plan : plans_) bytes += plan->pool.FreeBytes();
    return bytes;
  }

  void ReleaseFreePages() override {
    for (const auto& plan : plans_) plan->pool.ReleaseFree();
  }

 private:
  using Sequence = std::vector<LayerStore>;  // [layers]

  static absl::Status UnknownSequence(SequenceId id) {
    return absl::NotFoundError(absl::StrCat("no sequence ", id));
  }

  absl::StatusOr<Sequence*> Find(SequenceId id) const {
    std::shared_lock<std::shared_mutex> lock(mutex_);
    const auto it = sequences_.find(id);
    if (it == sequences_.end()) return UnknownSequence(id);
    return it->second.get();
  }

  absl::StatusOr<LayerStore*> Find(SequenceId id, int layer) const {
    absl::StatusOr<Sequence*> sequence = Find(id);
    if (!sequence.ok()) return sequence.status();
    if (layer < 0 || layer >= config_.geometry.layers) {
      return absl::InvalidArgumentError(absl::StrCat(
          "layer ", layer, " is not in 0 to ", config_.geometry.layers - 1));
    }
    return &(**sequence)[layer];
  }

  const KvCacheConfig config_;
  const KvLayout layout_;
  // Before sequences_: pools outlive the pages in sequences.
  std::vector<std::unique_ptr<LayerPlan>> plans_;
  mutable std::shared_mutex mutex_;  // guards the map, not the sequences
  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  SequenceId next_id_ = 1;
};

}  // namespace

absl::StatusOr<std::unique_ptr<KvCache>> KvCache::Create(
    const KvCacheConfig& config, Backend backend) {
  absl::StatusOr<KvLayout> layout = ComputeKvLayout(config);
  if (!layout.ok()) return layout.status();
  auto cache = std::make_unique<KvCacheImpl>(config, *std::move(layout));
  absl::Status status = cache->Init(backend);
  if (!status.ok()) return status;
  return cache;
}

}  // namespace ratequant::kv
