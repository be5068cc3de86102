/* Steps, forks and saved sequences from C11: what an engine does. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ratequant/kv/c_api.h"
#include "tests/kernels/cache/c_check.h"

enum { kLayers = 2, kHeads = 2, kQueryHeads = 4, kDim = 32, kTokens = 64 };
enum { kGroups = kLayers * kHeads * 2 };

static float keys[kHeads * kTokens * kDim], values[kHeads * kTokens * kDim];
static float queries[kQueryHeads * kTokens * kDim];
static float out[kQueryHeads * kTokens * kDim];

/* [heads, rows, head_dim], dense. */
static rq_kv_const_tensor In(const float* data, int64_t rows) {
  rq_kv_const_tensor tensor = {.struct_size = sizeof(tensor),
                               .data = data,
                               .head_stride = rows * kDim,
                               .row_stride = kDim,
                               .dtype = RQ_KV_FLOAT32};
  return tensor;
}

static rq_kv_tensor Out(float* data, int64_t rows) {
  rq_kv_tensor tensor = {.struct_size = sizeof(tensor),
                         .data = data,
                         .head_stride = rows * kDim,
                         .row_stride = kDim,
                         .dtype = RQ_KV_FLOAT32};
  return tensor;
}

static rq_kv_cache Create(uint32_t bits) {
  static rq_kv_quantizer quantizer = {.struct_size = sizeof(quantizer)};
  static uint32_t index[kGroups];
  uint32_t width[kGroups];
  CHECK(rq_kv_parse_quantizer("turboquant", &quantizer) == RQ_KV_OK);
  for (int g = 0; g < kGroups; ++g) width[g] = bits;
  const rq_kv_cache_config config = {.struct_size = sizeof(config),
                                     .layers = kLayers,
                                     .kv_heads = kHeads,
                                     .head_dim = kDim,
                                     .page_tokens = 32,
                                     .sink_tokens = 4,
                                     .window = 8,
                                     .quantizers = &quantizer,
                                     .num_quantizers = 1,
                                     .quantizer_index = index,
                                     .width = width,
                                     .num_groups = kGroups,
                                     .query_heads = kQueryHeads,
                                     .max_sequences = 4,
                                     .num_pages = 20};
  rq_kv_cache cache = 0;
  CHECK(rq_kv_cache_create(&config, &cache) == RQ_KV_OK);
  return cache;
}

/* out = attention over the gathered cache, in double. */
static void CheckAttention(rq_kv_cache cache, int64_t sequence, int layer,
                           int rows, int row, int count, float scale) {
  static float k[kHeads * kTokens * kDim], v[kHeads * kTokens * kDim];
  int64_t length = 0;
  CHECK(rq_kv_sequence_length(cache, sequence, layer, &length) == RQ_KV_OK);
  const rq_kv_tensor to_k = Out(k, length), to_v = Out(v, length);
  CHECK(rq_kv_gather(cache, sequence, layer, 0, length, &to_k, &to_v) ==
        RQ_KV_OK);
  for (int h = 0; h < kQueryHeads; ++h) {
    const int kv = h / (kQueryHeads / kHeads);
    for (int i = 0; i < count; ++i) {
      const float* q = queries + (h * rows + row + i) * kDim;
      const int64_t seen = length - count + i + 1;
      double sum = 0, want[kDim] = {0};
      for (int64_t t = 0; t < seen; ++t) {
        double score = 0;
        for (int c = 0; c < kDim; ++c) {
          score += (double)q[c] * k[(kv * length + t) * kDim + c];
        }
        const double weight = exp(score * scale);
        sum += weight;
        for (int c = 0; c < kDim; ++c) {
          want[c] += weight * v[(kv * length + t) * kDim + c];
        }
      }
      for (int c = 0; c < kDim; ++c) {
        const float got = out[(h * rows + row + i) * kDim + c];
        CHECK(fabs(got - want[c] / sum) < 1e-4);
      }
    }
  }
}

static void AStepGoesThroughAllLayers(void) {
  const rq_kv_cache cache = Create(4);
  rq_kv_threads threads = 0;
  CHECK(rq_kv_threads_create(2, &threads) == RQ_KV_OK);
  const rq_kv_execution on = {.struct_size = sizeof(on), .threads = threads};
  int64_t a = 0, b = 0;
  CHECK(rq_kv_sequence_add(cache, &a) == RQ_KV_OK);
  CHECK(rq_kv_sequence_add(cache, &b) == RQ_KV_OK);
  const rq_kv_const_tensor prompt_k = In(keys, 50), prompt_v = In(values, 50);
  for (int layer = 0; layer < kLayers; ++layer) {
    CHECK(rq_kv_append_on(cache, a, layer, 50, &prompt_k, &prompt_v, &on) ==
          RQ_KV_OK);
  }
  rq_kv_batch batch = 0;
  CHECK(rq_kv_batch_create(cache, 2, 3, &batch) == RQ_KV_OK);
  const rq_kv_batch_entry entries[2] = {{.sequence = a, .tokens = 1},
                                        {.sequence = b, .tokens = 3}};
  const rq_kv_const_tensor k = In(keys, 4), v = In(values, 4);
  const rq_kv_const_tensor q = In(queries, 4);
  const rq_kv_tensor o = Out(out, 4);
  rq_kv_attention_params params = {.struct_size = sizeof(params),
                                   .query_heads = kQueryHeads,
                                   .softmax_scale = 0.2f};
  CHECK_FAILS(rq_kv_append_step(batch, 0, &k, &v, &on),
              RQ_KV_FAILED_PRECONDITION, "no prepared step");
  CHECK(rq_kv_prepare(batch, entries, 2, &on) == RQ_KV_OK);
  CHECK_FAILS(rq_kv_attend(batch, 0, &params, &q, &o, &on),
              RQ_KV_FAILED_PRECONDITION, "are appended");
  for (int layer = 0; layer < kLayers; ++layer) {
    CHECK(rq_kv_append_step(batch, layer, &k, &v, &on) == RQ_KV_OK);
    CHECK(rq_kv_attend(batch, layer, &params, &q, &o, &on) == RQ_KV_OK);
    CheckAttention(cache, a, layer, 4, 0, 1, 0.2f);
    CheckAttention(cache, b, layer, 4, 1, 3, 0.2f);
  }
  params.query_heads = 3;
  CHECK_FAILS(rq_kv_attend(batch, 0, &params, &q, &o, &on),
              RQ_KV_INVALID_ARGUMENT, "query_heads 3");
  CHECK_FAILS(rq_kv_prepare(batch, NULL, 2, &on), RQ_KV_INVALID_ARGUMENT,
              "entries is null");
  /* The batch keeps the cache; the handles are gone at once. */
  CHECK(rq_kv_cache_destroy(cache) == RQ_KV_OK);
  CHECK_FAILS(rq_kv_batch_create(cache, 2, 3, &batch), RQ_KV_NOT_FOUND,
              "no cache");
  CHECK(rq_kv_threads_destroy(threads) == RQ_KV_OK);
  CHECK_FAILS(rq_kv_prepare(batch, entries, 2, &on), RQ_KV_NOT_FOUND,
              "no threads");
  CHECK(rq_kv_prepare(batch, entries, 2, NULL) == RQ_KV_OK);
  CHECK(rq_kv_mark_appended(batch) == RQ_KV_OK);
  CHECK(rq_kv_batch_destroy(batch) == RQ_KV_OK);
  CHECK_FAILS(rq_kv_batch_destroy(batch), RQ_KV_NOT_FOUND, "no batch");
  CHECK_FAILS(rq_kv_threads_create(-1, &threads), RQ_KV_INVALID_ARGUMENT,
              "threads -1");
}

static void SequencesForkAndMove(void) {
  const rq_kv_cache cache = Create(3), other = Create(3), wider = Create(5);
  char digest[65], same[65], differs[65];
  CHECK(rq_kv_format_digest(cache, digest, sizeof(digest)) == RQ_KV_OK);
  CHECK(rq_kv_format_digest(other, same, sizeof(same)) == RQ_KV_OK);
  CHECK(rq_kv_format_digest(wider, differs, sizeof(differs)) == RQ_KV_OK);
  CHECK(strlen(digest) == 64 && strcmp(digest, same) == 0);
  CHECK(strcmp(digest, differs) != 0);
  CHECK_FAILS(rq_kv_format_digest(cache, digest, 64), RQ_KV_OUT_OF_RANGE,
              "needs 65 bytes");

  int64_t parent = 0, child = 0, moved = 0, pages = 0, bytes = 0,
          same_bytes = 0;
  CHECK(rq_kv_sequence_add(cache, &parent) == RQ_KV_OK);
  const rq_kv_const_tensor k = In(keys, kTokens), v = In(values, kTokens);
  for (int layer = 0; layer < kLayers; ++layer) {
    CHECK(rq_kv_append(cache, parent, layer, kTokens, &k, &v) == RQ_KV_OK);
  }
  CHECK(rq_kv_free_pages(cache, &pages) == RQ_KV_OK && pages == 18);
  CHECK(rq_kv_sequence_fork(cache, parent, kTokens, NULL, &child) == RQ_KV_OK);
  CHECK(rq_kv_free_pages(cache, &pages) == RQ_KV_OK && pages == 18);
  CHECK_FAILS(rq_kv_sequence_fork(cache, parent, 33, NULL, &child),
              RQ_KV_INVALID_ARGUMENT, "multiples of 32 from 4 to 32");

  CHECK(rq_kv_sequence_truncate(cache, child, kTokens) == RQ_KV_OK);
  CHECK_FAILS(rq_kv_sequence_truncate(cache, child, 1), RQ_KV_INVALID_ARGUMENT,
              "supported are");
  CHECK(rq_kv_saved_bytes(cache, child, &bytes) == RQ_KV_OK);
  unsigned char* saved = malloc((size_t)bytes);
  unsigned char* again = malloc((size_t)bytes);
  CHECK(saved != NULL && again != NULL);
  CHECK(rq_kv_sequence_save(cache, child, saved, (size_t)bytes, NULL) ==
        RQ_KV_OK);
  CHECK_FAILS(rq_kv_sequence_save(cache, child, saved, 5, NULL),
              RQ_KV_INVALID_ARGUMENT, "the buffer has 5");
  CHECK_FAILS(rq_kv_sequence_load(wider, saved, (size_t)bytes, NULL, &moved),
              RQ_KV_INVALID_ARGUMENT, digest);
  CHECK(rq_kv_sequence_load(other, saved, (size_t)bytes, NULL, &moved) ==
        RQ_KV_OK);
  CHECK(rq_kv_saved_bytes(other, moved, &same_bytes) == RQ_KV_OK);
  CHECK(same_bytes == bytes);
  CHECK(rq_kv_sequence_save(other, moved, again, (size_t)bytes, NULL) ==
        RQ_KV_OK);
  CHECK(memcmp(saved, again, (size_t)bytes) == 0);

  int64_t page = 0, reserved = 0;
  CHECK(rq_kv_page_bytes(cache, 1, &page) == RQ_KV_OK);
  CHECK(page <= bytes);
  CHECK(rq_kv_copy_pages_out(cache, parent, 1, 1, 1, again, (size_t)page,
                             NULL) == RQ_KV_OK);
  CHECK_FAILS(
      rq_kv_copy_pages_in(cache, parent, 1, 1, 1, again, (size_t)page, NULL),
      RQ_KV_FAILED_PRECONDITION, "shared");
  CHECK(rq_kv_sequence_remove(cache, child) == RQ_KV_OK);
  CHECK(rq_kv_copy_pages_in(cache, parent, 1, 1, 1, again, (size_t)page,
                            NULL) == RQ_KV_OK);
  CHECK(rq_kv_reserved_bytes(cache, &reserved) == RQ_KV_OK);
  CHECK(rq_kv_page_bytes(cache, -1, &page) == RQ_KV_OK);
  CHECK(reserved >= 20 * page);
  CHECK(rq_kv_check_faults(cache, NULL) == RQ_KV_OK);
  free(saved);
  free(again);
  CHECK(rq_kv_cache_destroy(cache) == RQ_KV_OK);
  CHECK(rq_kv_cache_destroy(other) == RQ_KV_OK);
  CHECK(rq_kv_cache_destroy(wider) == RQ_KV_OK);
}

/* A caller of before there were the fields from query_heads on. */
static void ShorterConfigsAreTaken(void) {
  rq_kv_quantizer quantizer = {.struct_size = sizeof(quantizer)};
  CHECK(rq_kv_parse_quantizer("rtn", &quantizer) == RQ_KV_OK);
  const uint32_t index[2] = {0, 0}, width[2] = {4, 4};
  rq_kv_cache_config config = {
      .struct_size = offsetof(rq_kv_cache_config, query_heads),
      .layers = 1,
      .kv_heads = 1,
      .head_dim = kDim,
      .page_tokens = 32,
      .quantizers = &quantizer,
      .num_quantizers = 1,
      .quantizer_index = index,
      .width = width,
      .num_groups = 2,
      .query_heads = -77,
      .num_pages = -77};
  rq_kv_cache cache = 0;
  CHECK(rq_kv_cache_create(&config, &cache) == RQ_KV_OK);
  CHECK(rq_kv_cache_destroy(cache) == RQ_KV_OK);
  config.struct_size = sizeof(config);
  CHECK_FAILS(rq_kv_cache_create(&config, &cache), RQ_KV_INVALID_ARGUMENT,
              "query_heads -77");
  config.query_heads = 0;
  config.num_pages = 10;
  config.device = RQ_KV_CUDA;
  CHECK_FAILS(rq_kv_cache_create(&config, &cache), RQ_KV_FAILED_PRECONDITION,
              "found");
}

int main(void) {
  unsigned state = 1;
  for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); ++i) {
    state = state * 1664525u + 1013904223u;
    keys[i] = (float)(state >> 8) / (1 << 24) - 0.5f;
    state = state * 1664525u + 1013904223u;
    values[i] = (float)(state >> 8) / (1 << 24) - 0.5f;
  }
  for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); ++i) {
    state = state * 1664525u + 1013904223u;
    queries[i] = 4.0f * ((float)(state >> 8) / (1 << 24) - 0.5f);
  }
  ShorterConfigsAreTaken();
  SequencesForkAndMove();
  AStepGoesThroughAllLayers();
  puts("ok");
  return 0;
}
