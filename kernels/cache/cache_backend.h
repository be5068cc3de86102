#ifndef RATEQUANT_KERNELS_CACHE_CACHE_BACKEND_H_
#define RATEQUANT_KERNELS_CACHE_CACHE_BACKEND_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/paging/sequence_step.h"
#include "ratequant/kv/attention.h"
#include "ratequant/kv/execution.h"
#include "ratequant/kv/heads.h"
#include "ratequant/kv/kv_cache.h"

namespace ratequant::kv {

// A step's place in a backend's memory.
class BackendBatch {
 public:
  virtual ~BackendBatch() = default;
};

// A new content for a page of all layers: that of `source`, or zeros where
// source is -1.
struct PageEdit {
  int32_t page = 0;
  int32_t source = -1;
};

// A value that can't be stored. entry -1: there is none.
struct BadCacheValue {
  int entry = -1;  // of the step
  int layer = 0;
  int head = 0;
  Tensor tensor = Tensor::kKey;
  int row = 0;  // of the entry
  int channel = 0;
  float value = 0;
};

// The memory of a cache and what happens in it. The cache above knows sequences
// and pages, checks arguments and says which slot and page is whose; a backend
// knows bytes. Calls for different slots may run at the same time; each call is
// in order with its stream.
class CacheBackend {
 public:
  virtual ~CacheBackend() = default;

  virtual absl::StatusOr<std::unique_ptr<BackendBatch>> MakeBatch(
      int max_entries, int max_tokens) const = 0;

  // Makes `steps` the batch's, at most max_entries.
  virtual absl::Status SetSteps(absl::Span<const SequenceStep> steps,
                                BackendBatch& batch, const Execution& on) = 0;

  // Blocks [first, first + pages.size()) of a slot are `pages`.
  virtual absl::Status SetBlocks(int slot, int first,
                                 absl::Span<const int32_t> pages,
                                 const Execution& on) = 0;

  virtual absl::Status EditPages(absl::Span<const PageEdit> edits,
                                 const Execution& on) = 0;

  // Makes all sidecars of a slot zeros.
  virtual absl::Status ClearSidecars(int slot, const Execution& on) = 0;

  // Copies what the sequence that `state` tells the slot, length (begin) and
  // packed_floor of has in its sidecars to another slot.
  virtual absl::Status CopySidecars(const SequenceStep& state, int to,
                                    const Execution& on) = 0;

  // What addresses and strides of tensors must be multiples of, in bytes; 1:
  // the element's size.
  virtual int tensor_alignment() const = 0;

  // The first value of a step's input that can't be stored, for backends whose
  // Append says that there is one: DATA_LOSS.
  virtual BadCacheValue FindBadInput(int layer,
                                     absl::Span<const SequenceStep> steps,
                                     const ConstHeads& keys,
                                     const ConstHeads& values,
                                     const Execution& on) const = 0;

  // What an append without a batch may store at a time.
  virtual int max_single_tokens() const = 0;

  // On an error the step's tokens aren't stored.
  virtual absl::Status Append(int layer, const BackendBatch& batch,
                              const ConstHeads& keys, const ConstHeads& values,
                              const Execution& on) = 0;
  virtual absl::Status Attend(int layer, const BackendBatch& batch,
                              const AttentionParams& params,
                              const ConstHeads& queries,
                              const MutableHeads& out, const Execution& on) = 0;

  // Reads positions [first, first + count) of the sequence of `state`, as in
  // CopySidecars.
  virtual absl::Status Gather(int layer, const SequenceStep& state, int first,
                              int count, const MutableHeads& keys,
                              const MutableHeads& values,
                              const Execution& on) const = 0;

  // Waits for the stream; the first bad value that Append met since the last
  // call.
  virtual absl::StatusOr<BadCacheValue> TakeFault(const Execution& on) = 0;

  // Between host memory and one page of a layer, or bytes [offset, offset +
  // count) of a slot's sidecar.
  virtual absl::Status CopyPageOut(int layer, int32_t page, uint8_t* out,
                                   const Execution& on) const = 0;
  virtual absl::Status CopyPageIn(int layer, int32_t page, const uint8_t* in,
                                  const Execution& on) = 0;
  virtual absl::Status CopySidecarOut(int layer, int slot, int64_t offset,
                                      int64_t count, uint8_t* out,
                                      const Execution& on) const = 0;
  virtual absl::Status CopySidecarIn(int layer, int slot, int64_t offset,
                                     int64_t count, const uint8_t* in,
                                     const Execution& on) = 0;

  // A page of a layer in host memory; null where it isn't there.
  virtual const uint8_t* HostPage(int layer, int32_t page) const = 0;

  virtual int64_t ReservedBytes() const = 0;

  // Whether ReleasePages does anything: gives the memory of free pages back.
  virtual bool gives_memory_back() const = 0;
  // Ascending.
  virtual void ReleasePages(absl::Span<const int32_t> pages) = 0;
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_CACHE_CACHE_BACKEND_H_
