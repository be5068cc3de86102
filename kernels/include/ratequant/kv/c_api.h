/* The C ABI of the RateQuant KV cache runtime (libratequant_kv).
 *
 * Stable: functions and fields are never removed or given another meaning
 * within one RQ_KV_ABI_VERSION. Every struct begins with `struct_size`, which
 * the caller sets to sizeof(the struct); a library older than its caller
 * refuses a longer struct unless the fields it doesn't know are zero.
 *
 * Every function that can fail returns an rq_kv_status and, on failure, leaves
 * a text for rq_kv_last_error_message. Outputs are written only on success.
 * Null pointers are RQ_KV_INVALID_ARGUMENT, and handles that don't exist, or no
 * longer, RQ_KV_NOT_FOUND. No exception crosses this boundary.
 *
 * Thread-safety: all functions may be called from any thread. Calls on one
 * sequence must not overlap unless all of them only read. A cache may be
 * destroyed while calls on it run: they finish first.
 */
#ifndef RATEQUANT_KV_C_API_H_
#define RATEQUANT_KV_C_API_H_

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define RQ_KV_EXPORT __declspec(dllexport)
#else
#define RQ_KV_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The ABI this header describes. Compare with rq_kv_abi_version(). */
#define RQ_KV_ABI_VERSION 1u

/* Status codes; the numbers are those of gRPC. Do not change. */
typedef int32_t rq_kv_status;
#define RQ_KV_OK 0
#define RQ_KV_INVALID_ARGUMENT 3
#define RQ_KV_NOT_FOUND 5
#define RQ_KV_RESOURCE_EXHAUSTED 8
#define RQ_KV_FAILED_PRECONDITION 9
#define RQ_KV_OUT_OF_RANGE 11
#define RQ_KV_UNIMPLEMENTED 12
#define RQ_KV_INTERNAL 13
#define RQ_KV_DATA_LOSS 15

/* Quantizer families. Do not change. */
#define RQ_KV_RTN 1
#define RQ_KV_KIVI 2
#define RQ_KV_QUAROT 3
#define RQ_KV_TURBOQUANT 4
#define RQ_KV_TCQ 5

/* Scales that turboquant and tcq store. Do not change. */
#define RQ_KV_SCALE_L2 1
#define RQ_KV_SCALE_UNBIASED 2

/* Element types. Do not change. */
#define RQ_KV_FLOAT32 0
#define RQ_KV_FLOAT16 1
#define RQ_KV_BFLOAT16 2

/* Halves of the cache. Do not change. */
#define RQ_KV_KEY 0
#define RQ_KV_VALUE 1

/* Devices. Do not change. */
#define RQ_KV_CPU 0
#define RQ_KV_CUDA 1

/* Handles. 0 is never one, and numbers are never used again. */
typedef uint64_t rq_kv_cache;
typedef uint64_t rq_kv_batch;   /* sequences that take a step together */
typedef uint64_t rq_kv_threads; /* a pool of threads */

/* One quantizer with all its parameters; see ratequant/kv/quantizer.h. Fields
 * that don't apply to `kind` hold their defaults, as rq_kv_parse_quantizer
 * leaves them. */
typedef struct rq_kv_quantizer {
  size_t struct_size;
  int32_t kind;        /* RQ_KV_RTN ... */
  int32_t group_size;  /* kivi; default 32 */
  uint64_t seed;       /* quarot, turboquant, tcq; default 0 */
  int32_t key_scale;   /* turboquant, tcq; default RQ_KV_SCALE_L2 */
  int32_t value_scale; /* the same; default RQ_KV_SCALE_UNBIASED */
} rq_kv_quantizer;

/* Sizes in bytes of one page of one group; see kernels/FORMAT.md. */
typedef struct rq_kv_section_layout {
  size_t struct_size;
  uint64_t params_bytes;  /* scales, zero points, norms */
  uint64_t row_bytes;     /* codes of one token */
  uint64_t codes_offset;  /* first row of codes */
  uint64_t section_bytes; /* the whole */
} rq_kv_section_layout;

/* What a cache stores. Group order: (layer * kv_heads + head) * 2 + (V ? 1 :
 * 0). The arrays are copied. */
typedef struct rq_kv_cache_config {
  size_t struct_size;
  int32_t layers;
  int32_t kv_heads;
  int32_t head_dim;
  int32_t page_tokens; /* 16, 32, 64 or 128 */
  int32_t sink_tokens; /* first tokens, kept in fp16 */
  int32_t window;      /* newest tokens, kept in fp16 */
  /* [num_quantizers]; elements are quantizers[0].struct_size bytes apart. */
  const rq_kv_quantizer* quantizers;
  size_t num_quantizers;
  const uint32_t* quantizer_index; /* [num_groups]; ignored at width 16 */
  const uint32_t* width;           /* [num_groups]; 1 to 8, or 16 */
  size_t num_groups;               /* layers * kv_heads * 2 */
  /* Callers that end here get 0 for the rest. */
  int32_t query_heads;    /* a multiple of kv_heads; 0: no attention */
  int32_t device;         /* RQ_KV_CPU ... */
  int32_t device_ordinal; /* which GPU */
  int32_t max_sequences;  /* 0: 256 */
  int64_t num_pages;      /* of all sequences; 0, on the CPU: what fits */
  int64_t max_tokens;     /* of one sequence; 0: what the pages hold */
  /* [num_means], fp32 [num_groups, head_dim]: taken off every row that is
   * stored, see KvCacheConfig in ratequant/kv/kv_layout.h; 0: none. */
  const float* means;
  size_t num_means;
} rq_kv_cache_config;

/* What an operation runs on; a null pointer to it stands for zeros. */
typedef struct rq_kv_execution {
  size_t struct_size;
  void* stream;          /* CUDA: a cudaStream_t */
  rq_kv_threads threads; /* CPU; 0: the calling thread alone */
} rq_kv_execution;

/* A step's part of one sequence. Plain, of fixed size. */
typedef struct rq_kv_batch_entry {
  int64_t sequence;
  int32_t tokens;   /* 1 or more */
  int32_t reserved; /* 0 */
} rq_kv_batch_entry;

/* See AttentionParams in ratequant/kv/attention.h. */
typedef struct rq_kv_attention_params {
  size_t struct_size;
  int32_t query_heads;
  float softmax_scale;
  float soft_cap;         /* 0: none */
  int32_t sliding_window; /* 0: none */
} rq_kv_attention_params;

/* K or V of all heads of a layer to read from, owned by the caller:
 * data[head * head_stride + token * row_stride + channel], strides in
 * elements. */
typedef struct rq_kv_const_tensor {
  size_t struct_size;
  const void* data;
  int64_t head_stride;
  int64_t row_stride;
  int32_t dtype;    /* RQ_KV_FLOAT32 ... */
  int32_t reserved; /* 0 */
} rq_kv_const_tensor;

/* The same to write to. */
typedef struct rq_kv_tensor {
  size_t struct_size;
  void* data;
  int64_t head_stride;
  int64_t row_stride;
  int32_t dtype;
  int32_t reserved; /* 0 */
} rq_kv_tensor;

/* The RQ_KV_ABI_VERSION the library was built with. */
RQ_KV_EXPORT uint32_t rq_kv_abi_version(void);

/* The version of the packed byte layout (kernels/FORMAT.md). */
RQ_KV_EXPORT uint32_t rq_kv_format_version(void);

/* What went wrong in this thread's last failed call; "" before any. Valid until
 * the thread's next failed call. */
RQ_KV_EXPORT const char* rq_kv_last_error_message(void);

/* Parses "kivi", "kivi:group_size=64", "turboquant:seed=7,key_scale=l2", ...
 * out->struct_size must be set. */
RQ_KV_EXPORT rq_kv_status rq_kv_parse_quantizer(const char* text,
                                                rq_kv_quantizer* out);

/* Writes the shortest text that parses to `quantizer`, with a closing 0, to
 * buffer[buffer_size]. RQ_KV_OUT_OF_RANGE names the size needed when that is
 * too small. */
RQ_KV_EXPORT rq_kv_status rq_kv_quantizer_name(const rq_kv_quantizer* quantizer,
                                               char* buffer,
                                               size_t buffer_size);

/* Sizes of one group's part of a page. At width 16 `quantizer` may be null. */
RQ_KV_EXPORT rq_kv_status rq_kv_section_layout_of(
    const rq_kv_quantizer* quantizer, int32_t tensor, int32_t width,
    int32_t head_dim, int32_t page_tokens, rq_kv_section_layout* out);

/* Makes an empty cache. */
RQ_KV_EXPORT rq_kv_status rq_kv_cache_create(const rq_kv_cache_config* config,
                                             rq_kv_cache* out);

/* Frees a cache with all its sequences, once no batch of it is left. */
RQ_KV_EXPORT rq_kv_status rq_kv_cache_destroy(rq_kv_cache cache);

/* Adds an empty sequence. Ids are never used again within a cache. */
RQ_KV_EXPORT rq_kv_status rq_kv_sequence_add(rq_kv_cache cache, int64_t* out);

/* Frees a sequence; its pages can then be used by others. */
RQ_KV_EXPORT rq_kv_status rq_kv_sequence_remove(rq_kv_cache cache,
                                                int64_t sequence);

/* Appends `tokens` rows to one layer of a sequence. On an error nothing is
 * appended. RQ_KV_DATA_LOSS names layer, head, K or V, token and channel of a
 * value that is not finite or above 65504 in magnitude. */
RQ_KV_EXPORT rq_kv_status rq_kv_append(rq_kv_cache cache, int64_t sequence,
                                       int32_t layer, int64_t tokens,
                                       const rq_kv_const_tensor* keys,
                                       const rq_kv_const_tensor* values);

/* Reads tokens [first, first + count) of one layer back, dequantized. `keys` or
 * `values` may be null. RQ_KV_OUT_OF_RANGE when there are fewer tokens. */
RQ_KV_EXPORT rq_kv_status rq_kv_gather(rq_kv_cache cache, int64_t sequence,
                                       int32_t layer, int64_t first,
                                       int64_t count, const rq_kv_tensor* keys,
                                       const rq_kv_tensor* values);

/* Tokens appended to one layer of a sequence. */
RQ_KV_EXPORT rq_kv_status rq_kv_sequence_length(rq_kv_cache cache,
                                                int64_t sequence, int32_t layer,
                                                int64_t* out);

/* Bytes really allocated for a sequence, over all layers. */
RQ_KV_EXPORT rq_kv_status rq_kv_allocated_bytes(rq_kv_cache cache,
                                                int64_t sequence, int64_t* out);

/* Bytes that a sequence of `length` tokens counts for in a budget, over all
 * layers; see SequenceBytes in ratequant/kv/kv_layout.h. */
RQ_KV_EXPORT rq_kv_status rq_kv_sequence_bytes(rq_kv_cache cache,
                                               int64_t length, int64_t* out);

/* Bytes of one page of `layer`; of all layers together when `layer` is -1. */
RQ_KV_EXPORT rq_kv_status rq_kv_page_bytes(rq_kv_cache cache, int32_t layer,
                                           int64_t* out);

/* Bytes of pages that belong to no sequence and wait to be used again. */
RQ_KV_EXPORT rq_kv_status rq_kv_free_page_bytes(rq_kv_cache cache,
                                                int64_t* out);

/* Gives the pages counted by rq_kv_free_page_bytes back to the system. */
RQ_KV_EXPORT rq_kv_status rq_kv_release_free_pages(rq_kv_cache cache);

/* Pages that can still be taken. */
RQ_KV_EXPORT rq_kv_status rq_kv_free_pages(rq_kv_cache cache, int64_t* out);

/* Bytes reserved at creation; see KvCache::ReservedBytes. */
RQ_KV_EXPORT rq_kv_status rq_kv_reserved_bytes(rq_kv_cache cache, int64_t* out);

/* Writes the 64 characters of the cache's format digest, with a closing 0, to
 * buffer[buffer_size]: a part of the key of an engine's prefix cache, so that
 * caches of different formats are never mixed. RQ_KV_OUT_OF_RANGE when the
 * buffer is too small. */
RQ_KV_EXPORT rq_kv_status rq_kv_format_digest(rq_kv_cache cache, char* buffer,
                                              size_t buffer_size);

/* --- Threads: for the CPU, from the caller --- */

/* A pool of `threads` threads, the calling one included; 0: one per core. */
RQ_KV_EXPORT rq_kv_status rq_kv_threads_create(int32_t threads,
                                               rq_kv_threads* out);

/* Calls that use the pool finish first. */
RQ_KV_EXPORT rq_kv_status rq_kv_threads_destroy(rq_kv_threads threads);

/* --- Steps of many sequences; see KvCache in ratequant/kv/kv_cache.h --- */

/* A batch for steps of up to `max_entries` sequences with up to `max_tokens`
 * tokens each. It keeps its cache alive. */
RQ_KV_EXPORT rq_kv_status rq_kv_batch_create(rq_kv_cache cache,
                                             int32_t max_entries,
                                             int32_t max_tokens,
                                             rq_kv_batch* out);
/* Frees it, and its cache where that was destroyed before. */
RQ_KV_EXPORT rq_kv_status rq_kv_batch_destroy(rq_kv_batch batch);

/* Prepares a step: takes the pages that its tokens need, all or none
 * (RQ_KV_RESOURCE_EXHAUSTED). The step's tensors have one row for each token,
 * in the order of `entries` [num_entries]. */
RQ_KV_EXPORT rq_kv_status rq_kv_prepare(rq_kv_batch batch,
                                        const rq_kv_batch_entry* entries,
                                        size_t num_entries,
                                        const rq_kv_execution* on);

/* Appends the step's tokens to one layer: [kv_heads, rows, head_dim]. */
RQ_KV_EXPORT rq_kv_status rq_kv_append_step(rq_kv_batch batch, int32_t layer,
                                            const rq_kv_const_tensor* keys,
                                            const rq_kv_const_tensor* values,
                                            const rq_kv_execution* on);

/* Decode attention of the step's tokens after they are appended, straight from
 * the packed bytes; queries and out are [query_heads, rows, head_dim]. */
RQ_KV_EXPORT rq_kv_status rq_kv_attend(rq_kv_batch batch, int32_t layer,
                                       const rq_kv_attention_params* params,
                                       const rq_kv_const_tensor* queries,
                                       const rq_kv_tensor* out,
                                       const rq_kv_execution* on);

/* After replaying a CUDA graph that holds the step's appends: sets the lengths
 * to what the step makes them. */
RQ_KV_EXPORT rq_kv_status rq_kv_mark_appended(rq_kv_batch batch);

/* rq_kv_append on a stream or with threads. */
RQ_KV_EXPORT rq_kv_status rq_kv_append_on(rq_kv_cache cache, int64_t sequence,
                                          int32_t layer, int64_t tokens,
                                          const rq_kv_const_tensor* keys,
                                          const rq_kv_const_tensor* values,
                                          const rq_kv_execution* on);
/* rq_kv_gather on a stream or with threads. */
RQ_KV_EXPORT rq_kv_status rq_kv_gather_on(rq_kv_cache cache, int64_t sequence,
                                          int32_t layer, int64_t first,
                                          int64_t count,
                                          const rq_kv_tensor* keys,
                                          const rq_kv_tensor* values,
                                          const rq_kv_execution* on);

/* CUDA: waits for the stream; RQ_KV_DATA_LOSS names the first value since the
 * last call that could not be stored. */
RQ_KV_EXPORT rq_kv_status rq_kv_check_faults(rq_kv_cache cache,
                                             const rq_kv_execution* on);

/* --- Sharing and moving --- */

/* A new sequence with the first `tokens` tokens of another, sharing its pages
 * until one of them writes to one: all of its tokens, or a packed prefix in
 * whole pages. */
RQ_KV_EXPORT rq_kv_status rq_kv_sequence_fork(rq_kv_cache cache, int64_t parent,
                                              int64_t tokens,
                                              const rq_kv_execution* on,
                                              int64_t* out);

/* Drops a sequence's newest tokens, so that `tokens` are left: at least what
 * has left the window. What had left it stays packed. */
RQ_KV_EXPORT rq_kv_status rq_kv_sequence_truncate(rq_kv_cache cache,
                                                  int64_t sequence,
                                                  int64_t tokens);

/* Bytes that saving a sequence takes. */
RQ_KV_EXPORT rq_kv_status rq_kv_saved_bytes(rq_kv_cache cache, int64_t sequence,
                                            int64_t* out);
/* Saves a sequence to host memory of exactly rq_kv_saved_bytes; see
 * kernels/FORMAT.md. */
RQ_KV_EXPORT rq_kv_status rq_kv_sequence_save(rq_kv_cache cache,
                                              int64_t sequence, void* buffer,
                                              size_t buffer_size,
                                              const rq_kv_execution* on);
/* Makes a sequence of saved bytes, in this or another cache of the same format
 * digest, on any device. */
RQ_KV_EXPORT rq_kv_status rq_kv_sequence_load(rq_kv_cache cache,
                                              const void* buffer,
                                              size_t buffer_size,
                                              const rq_kv_execution* on,
                                              int64_t* out);

/* Copies pages [first, first + count) of one layer of a sequence to host
 * memory of count * rq_kv_page_bytes(layer). */
RQ_KV_EXPORT rq_kv_status rq_kv_copy_pages_out(rq_kv_cache cache,
                                               int64_t sequence, int32_t layer,
                                               int64_t first, int64_t count,
                                               void* buffer, size_t buffer_size,
                                               const rq_kv_execution* on);
/* The way back. */
RQ_KV_EXPORT rq_kv_status rq_kv_copy_pages_in(rq_kv_cache cache,
                                              int64_t sequence, int32_t layer,
                                              int64_t first, int64_t count,
                                              const void* buffer,
                                              size_t buffer_size,
                                              const rq_kv_execution* on);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* RATEQUANT_KV_C_API_H_ */
