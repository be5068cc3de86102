#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cache/paged_batch.h"
#include "kernels/cache/paged_cache.h"

namespace ratequant::kv {

absl::StatusOr<std::unique_ptr<KvBatch>> PagedCache::MakeBatch(
    int max_entries, int max_tokens) const {
  if (max_entries < 1 || max_entries > options_.max_sequences) {
    return absl::InvalidArgumentError(
        absl::StrCat("a batch of ", max_entries,
                     " entries is not supported; supported are 1 to the ",
                     options_.max_sequences, " sequences of the cache"));
  }
  if (max_tokens < 1 || max_tokens > options_.max_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("a batch of ", max_tokens,
                     " tokens an entry is not supported; "
                     "supported are 1 to the ",
                     options_.max_tokens, " tokens of a sequence"));
  }
  absl::StatusOr<std::unique_ptr<BackendBatch>> backend =
      backend_->MakeBatch(max_entries, max_tokens);
  if (!backend.ok()) return backend.status();
  return std::make_unique<PagedBatch>(this, max_entries, max_tokens,
                                      *std::move(backend));
}

absl::Status PagedCache::Prepare(absl::Span<const BatchEntry> entries,
                                 KvBatch& batch, const Execution& on) {
  PagedBatch& to = static_cast<PagedBatch&>(batch);
  if (to.cache != this) {
    return absl::InvalidArgumentError("the batch is another cache's");
  }
  if (entries.empty() || entries.size() > static_cast<size_t>(to.max_entries)) {
    return absl::InvalidArgumentError(
        absl::StrCat(entries.size(), " entries; the batch is made for 1 to ",
                     to.max_entries));
  }
  to.steps.clear();
  to.states.clear();
  std::vector<Used> uses;
  std::vector<SequenceState*> states;
  std::vector<SequenceStep> steps;
  int64_t row = 0;
  for (const BatchEntry& entry : entries) {
    if (entry.tokens < 1 || entry.tokens > to.max_tokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("sequence ", entry.sequence, ": ", entry.tokens,
                       " tokens; the batch is made for 1 to ", to.max_tokens));
    }
    // A sequence that is there twice is in use by its first entry.
    absl::StatusOr<Used> used = Use(entry.sequence, ScopedUse::Kind::kWrite);
    if (!used.ok()) return used.status();
    const SequenceState& state = *used->state;
    absl::StatusOr<int32_t> length = WholeLength(state);
    if (!length.ok()) return length.status();
    absl::Status status = CheckCapacity(state, *length, entry.tokens);
    if (!status.ok()) return status;
    steps.push_back({.slot = state.slot,
                     .begin = *length,
                     .count = entry.tokens,
                     .first_row = static_cast<int32_t>(row),
                     .packed_floor = state.packed_floor});
    states.push_back(used->state.get());
    uses.push_back(*std::move(used));
    row += entry.tokens;
  }
  absl::Status status = TakePages(states, steps, on);
  if (status.ok()) status = backend_->SetSteps(steps, *to.backend, on);
  if (!status.ok()) return status;
  to.steps = std::move(steps);
  for (Used& used : uses) to.states.push_back(std::move(used.state));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<PagedCache::Used>> PagedCache::UseAll(
    const PagedBatch& step, ScopedUse::Kind kind) {
  std::vector<Used> uses;
  uses.reserve(step.states.size());
  for (const std::shared_ptr<SequenceState>& state : step.states) {
    absl::StatusOr<Used> used = Use(state, kind);
    if (!used.ok()) return used.status();
    uses.push_back(*std::move(used));
  }
  return uses;
}

absl::StatusOr<const PagedBatch*> PagedCache::Prepared(
    const KvBatch& batch) const {
  const PagedBatch& prepared = static_cast<const PagedBatch&>(batch);
  if (prepared.cache != this) {
    return absl::InvalidArgumentError("the batch is another cache's");
  }
  if (prepared.steps.empty()) {
    return absl::FailedPreconditionError("the batch has no prepared step");
  }
  return &prepared;
}

HeadsShape PagedCache::KvShape(absl::string_view name, int64_t rows) const {
  return {name, config_.geometry.kv_heads, rows, config_.geometry.head_dim,
          backend_->tensor_alignment()};
}

absl::Status PagedCache::BadValueError(const BadCacheValue& bad, int layer,
                                       const SequenceState& state,
                                       int begin) const {
  return absl::DataLossError(absl::StrCat(
      "sequence ", state.id, ", layer ", layer, ", head ", bad.head, ", ",
      bad.tensor == Tensor::kKey ? "K" : "V", ", token ", begin + bad.row,
      ", channel ", bad.channel, ": ", bad.value,
      " can't be stored; values are finite and at most 65504 in magnitude"));
}

absl::Status PagedCache::Append(const KvBatch& batch, int layer,
                                const ConstHeads& keys,
                                const ConstHeads& values, const Execution& on) {
  absl::StatusOr<const PagedBatch*> step = Prepared(batch);
  if (!step.ok()) return step.status();
  absl::Status status = CheckLayer(layer);
  if (!status.ok()) return status;
  const HeadsShape k = KvShape("keys", (*step)->rows());
  const HeadsShape v = KvShape("values", (*step)->rows());
  status = CheckInput(keys, k);
  if (status.ok()) status = CheckInput(values, v);
  if (!status.ok()) return status;
  absl::StatusOr<std::vector<Used>> uses =
      UseAll(**step, ScopedUse::Kind::kWrite);
  if (!uses.ok()) return uses.status();
  const std::vector<SequenceStep>& steps = (*step)->steps;
  for (size_t i = 0; i < steps.size(); ++i) {
    const SequenceState& state = *(*step)->states[i];
    if (state.lengths[layer] != steps[i].begin) {
      return absl::FailedPreconditionError(absl::StrCat(
          "layer ", layer, " of sequence ", state.id, " has ",
          state.lengths[layer], " tokens and the step was prepared for ",
          steps[i].begin));
    }
    const WrittenBlocks written = BlocksOf(steps[i]);
    for (int b = written.first; b < written.end; ++b) {
      if (!pages_.IsShared(state.blocks[b])) continue;
      return absl::FailedPreconditionError(
          absl::StrCat("sequence ", state.id,
                       " was forked after the step was prepared; prepare it "
                       "again"));
    }
  }
  const ConstHeads k_rows = Normalized(keys, k), v_rows = Normalized(values, v);
  status = backend_->Append(layer, *(*step)->backend, k_rows, v_rows, on);
  if (absl::IsDataLoss(status)) {
    const BadCacheValue bad =
        backend_->FindBadInput(layer, steps, k_rows, v_rows, on);
    if (bad.entry < 0) return status;
    return BadValueError(bad, layer, *(*step)->states[bad.entry],
                         steps[bad.entry].begin);
  }
  if (!status.ok()) return status;
  for (size_t i = 0; i < steps.size(); ++i) {
    (*step)->states[i]->lengths[layer] = steps[i].begin + steps[i].count;
  }
  return absl::OkStatus();
}

absl::Status PagedCache::MarkAppended(const KvBatch& batch) {
  absl::StatusOr<const PagedBatch*> step = Prepared(batch);
  if (!step.ok()) return step.status();
  absl::StatusOr<std::vector<Used>> uses =
      UseAll(**step, ScopedUse::Kind::kWrite);
  if (!uses.ok()) return uses.status();
  for (size_t i = 0; i < (*step)->steps.size(); ++i) {
    std::vector<int32_t>& lengths = (*step)->states[i]->lengths;
    std::fill(lengths.begin(), lengths.end(),
              (*step)->steps[i].begin + (*step)->steps[i].count);
  }
  return absl::OkStatus();
}

absl::Status PagedCache::Append(SequenceId id, int layer, int64_t tokens,
                                const ConstHeads& keys,
                                const ConstHeads& values, const Execution& on) {
  absl::StatusOr<Used> used = Use(id, ScopedUse::Kind::kWrite);
  if (!used.ok()) return used.status();
  absl::Status status = CheckLayer(layer);
  if (!status.ok()) return status;
  SequenceState* const state = used->state.get();
  const int32_t begin = state->lengths[layer];
  if (tokens < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("can't append ", tokens, " tokens"));
  }
  status = CheckCapacity(*state, begin, tokens);
  if (!status.ok()) return status;
  if (tokens == 0) return absl::OkStatus();
  const HeadsShape k = KvShape("keys", tokens), v = KvShape("values", tokens);
  status = CheckInput(keys, k);
  if (status.ok()) status = CheckInput(values, v);
  if (!status.ok()) return status;
  const ConstHeads k_rows = Normalized(keys, k), v_rows = Normalized(values, v);
  const SequenceStep whole = {.slot = state->slot,
                              .begin = begin,
                              .count = static_cast<int32_t>(tokens),
                              .packed_floor = state->packed_floor};
  const size_t blocks = state->blocks.size();
  status = TakePages({&state, 1}, {&whole, 1}, on);
  if (status.ok()) status = AppendWhole(layer, whole, k_rows, v_rows, on);
  if (status.ok()) {
    state->lengths[layer] += static_cast<int32_t>(tokens);
    return status;
  }
  pages_.Return(absl::MakeConstSpan(state->blocks).subspan(blocks));
  state->blocks.resize(blocks);
  if (absl::IsDataLoss(status)) {
    const BadCacheValue bad =
        backend_->FindBadInput(layer, {&whole, 1}, k_rows, v_rows, on);
    if (bad.entry >= 0) return BadValueError(bad, layer, *state, begin);
  }
  return status;
}

absl::Status PagedCache::AppendWhole(int layer, const SequenceStep& whole,
                                     const ConstHeads& keys,
                                     const ConstHeads& values,
                                     const Execution& on) {
  absl::StatusOr<std::unique_ptr<BackendBatch>> single = TakeSingle();
  if (!single.ok()) return single.status();
  absl::Status status;
  SequenceStep step = whole;
  for (int done = 0; status.ok() && done < whole.count; done += step.count) {
    step.begin = whole.begin + done;
    step.first_row = done;
    step.count = std::min(whole.count - done, backend_->max_single_tokens());
    status = backend_->SetSteps({&step, 1}, **single, on);
    if (status.ok()) {
      status = backend_->Append(layer, **single, keys, values, on);
    }
  }
  KeepSingle(*std::move(single));
  return status;
}

absl::StatusOr<std::unique_ptr<BackendBatch>> PagedCache::TakeSingle() {
  {
    const std::lock_guard<std::mutex> lock(singles_mutex_);
    if (!singles_.empty()) {
      std::unique_ptr<BackendBatch> single = std::move(singles_.back());
      singles_.pop_back();
      return single;
    }
  }
  return backend_->MakeBatch(1, backend_->max_single_tokens());
}

void PagedCache::KeepSingle(std::unique_ptr<BackendBatch> single) {
  const std::lock_guard<std::mutex> lock(singles_mutex_);
  singles_.push_back(std::move(single));
}

absl::Status PagedCache::Attend(const KvBatch& batch, int layer,
                                const AttentionParams& params,
                                const ConstHeads& queries,
                                const MutableHeads& out, const Execution& on) {
  absl::StatusOr<const PagedBatch*> step = Prepared(batch);
  if (!step.ok()) return step.status();
  absl::Status status = CheckLayer(layer);
  if (status.ok()) status = CheckAttention(**step, params);
  if (!status.ok()) return status;
  HeadsShape q = KvShape("queries", (*step)->rows());
  q.heads = params.query_heads;
  HeadsShape o = q;
  o.name = "out";
  status = CheckInput(queries, q);
  if (status.ok()) status = CheckOutput(out, o);
  if (!status.ok()) return status;
  absl::StatusOr<std::vector<Used>> uses =
      UseAll(**step, ScopedUse::Kind::kRead);
  if (!uses.ok()) return uses.status();
  for (size_t i = 0; i < (*step)->steps.size(); ++i) {
    const SequenceStep& of = (*step)->steps[i];
    const SequenceState& state = *(*step)->states[i];
    if (state.lengths[layer] == of.begin + of.count) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("layer ", layer, " of sequence ", state.id, " has ",
                     state.lengths[layer],
                     " tokens; attention of this step comes when its "
                     "tokens are appended, at ",
                     of.begin + of.count));
  }
  return backend_->Attend(layer, *(*step)->backend, params,
                          Normalized(queries, q), Normalized(out, o), on);
}

absl::Status PagedCache::CheckAttention(const PagedBatch& batch,
                                        const AttentionParams& params) const {
  const auto invalid = [](const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat(what...));
  };
  if (config_.geometry.query_heads == 0) {
    return absl::FailedPreconditionError(
        "the cache was made without query heads, which attention needs");
  }
  if (params.query_heads != config_.geometry.query_heads) {
    return invalid("query_heads ", params.query_heads,
                   "; the cache is made for ", config_.geometry.query_heads);
  }
  if (!(params.softmax_scale > 0) || std::isinf(params.softmax_scale)) {
    return invalid("softmax_scale ", params.softmax_scale,
                   " is not supported; it is above 0");
  }
  if (!(params.soft_cap >= 0) || std::isinf(params.soft_cap)) {
    return invalid("soft_cap ", params.soft_cap,
                   " is not supported; it is above 0, or 0 for none");
  }
  if (params.soft_cap > 0 && !config_.means.empty()) {
    // What all scores of a query lack no longer cancels behind a cap.
    return invalid("soft_cap ", params.soft_cap,
                   " is not supported by a cache with means; make it without");
  }
  if (params.sliding_window < 0) {
    return invalid("sliding_window ", params.sliding_window,
                   " is not supported; it is above 0, or 0 for none");
  }
  if (batch.max_tokens > kMaxDecodeQueries) {
    return invalid("decode attention takes batches of up to ",
                   kMaxDecodeQueries, " tokens an entry, this one is for ",
                   batch.max_tokens);
  }
  return absl::OkStatus();
}

absl::Status PagedCache::Gather(SequenceId id, int layer, int64_t first,
                                int64_t count, const MutableHeads& keys,
                                const MutableHeads& values,
                                const Execution& on) const {
  absl::StatusOr<Used> used = Use(id, ScopedUse::Kind::kRead);
  if (!used.ok()) return used.status();
  absl::Status status = CheckLayer(layer);
  if (!status.ok()) return status;
  const SequenceState& state = *used->state;
  const int64_t length = state.lengths[layer];
  if (first < 0 || count < 0 || first > length - count) {
    return absl::OutOfRangeError(absl::StrCat("tokens [", first, ", ", first,
                                              " + ", count, ") of layer ",
                                              layer, ", which has ", length));
  }
  if (count == 0) return absl::OkStatus();
  const HeadsShape k = KvShape("keys", count), v = KvShape("values", count);
  if (keys.data != nullptr) status = CheckOutput(keys, k);
  if (status.ok() && values.data != nullptr) status = CheckOutput(values, v);
  if (!status.ok()) return status;
  const SequenceStep of = {.slot = state.slot,
                           .begin = static_cast<int32_t>(length),
                           .packed_floor = state.packed_floor};
  return backend_->Gather(layer, of, static_cast<int>(first),
                          static_cast<int>(count), Normalized(keys, k),
                          Normalized(values, v), on);
}

absl::Status PagedCache::CheckFaults(const Execution& on) {
  absl::StatusOr<BadCacheValue> bad = backend_->TakeFault(on);
  if (!bad.ok()) return bad.status();
  if (bad->entry < 0) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      "entry ", bad->entry, " of a step, layer ", bad->layer, ", head ",
      bad->head, ", ", bad->tensor == Tensor::kKey ? "K" : "V", ", row ",
      bad->row, ", channel ", bad->channel,
      ": a value that can't be stored; values are finite and at most 65504 in "
      "magnitude. Zeros are in its place"));
}

}  // namespace ratequant::kv
