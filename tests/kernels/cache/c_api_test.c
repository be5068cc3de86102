/* The C ABI from C11: compiled with -pedantic, linked against the shared
 * library only. */
#include "ratequant/kv/c_api.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/cache/c_check.h"

enum { kLayers = 2, kHeads = 2, kDim = 32, kTokens = 100 };
enum { kGroups = kLayers * kHeads * 2, kElements = kHeads * kTokens * kDim };

static float keys[kElements], values[kElements], out[kElements];

static rq_kv_quantizer Parse(const char* text) {
  rq_kv_quantizer quantizer = {.struct_size = sizeof(quantizer)};
  CHECK(rq_kv_parse_quantizer(text, &quantizer) == RQ_KV_OK);
  return quantizer;
}

static rq_kv_const_tensor In(const float* data) {
  rq_kv_const_tensor tensor = {.struct_size = sizeof(tensor),
                               .data = data,
                               .head_stride = kTokens * kDim,
                               .row_stride = kDim,
                               .dtype = RQ_KV_FLOAT32};
  return tensor;
}

static rq_kv_tensor Out(float* data) {
  rq_kv_tensor tensor = {.struct_size = sizeof(tensor),
                         .data = data,
                         .head_stride = kTokens * kDim,
                         .row_stride = kDim,
                         .dtype = RQ_KV_FLOAT32};
  return tensor;
}

static rq_kv_quantizer quantizers[2];
static uint32_t quantizer_index[kGroups] = {0, 1, 1, 0, 0, 0, 1, 1};
static uint32_t width[kGroups] = {4, 3, 8, 2, 16, 5, 1, 6};

static rq_kv_cache_config Config(void) {
  quantizers[0] = Parse("kivi");
  quantizers[1] = Parse("turboquant:seed=7");
  rq_kv_cache_config config = {.struct_size = sizeof(config),
                               .layers = kLayers,
                               .kv_heads = kHeads,
                               .head_dim = kDim,
                               .page_tokens = 32,
                               .sink_tokens = 4,
                               .window = 16,
                               .quantizers = quantizers,
                               .num_quantizers = 2,
                               .quantizer_index = quantizer_index,
                               .width = width,
                               .num_groups = kGroups};
  return config;
}

static rq_kv_cache Create(void) {
  const rq_kv_cache_config config = Config();
  rq_kv_cache cache = 0;
  CHECK(rq_kv_cache_create(&config, &cache) == RQ_KV_OK);
  CHECK(cache != 0);
  return cache;
}

static void VersionsMatchTheHeader(void) {
  CHECK(rq_kv_abi_version() == RQ_KV_ABI_VERSION);
  CHECK(rq_kv_format_version() >= 1);
}

static void QuantizersParseAndPrint(void) {
  char name[64];
  rq_kv_quantizer quantizer = Parse("turboquant:seed=7,key_scale=unbiased");
  CHECK(quantizer.kind == RQ_KV_TURBOQUANT);
  CHECK(quantizer.seed == 7);
  CHECK(quantizer.key_scale == RQ_KV_SCALE_UNBIASED);
  CHECK(rq_kv_quantizer_name(&quantizer, name, sizeof(name)) == RQ_KV_OK);
  CHECK(strcmp(name, "turboquant:seed=7,key_scale=unbiased") == 0);
  CHECK_FAILS(rq_kv_quantizer_name(&quantizer, name, 5), RQ_KV_OUT_OF_RANGE,
              "37 bytes");
  CHECK_FAILS(rq_kv_quantizer_name(&quantizer, NULL, 5), RQ_KV_INVALID_ARGUMENT,
              "buffer is null");
  CHECK_FAILS(rq_kv_parse_quantizer("gptq", &quantizer), RQ_KV_INVALID_ARGUMENT,
              "gptq");
  CHECK(quantizer.kind == RQ_KV_TURBOQUANT);
  CHECK_FAILS(rq_kv_parse_quantizer(NULL, &quantizer), RQ_KV_INVALID_ARGUMENT,
              "text is null");
  CHECK_FAILS(rq_kv_parse_quantizer("kivi", NULL), RQ_KV_INVALID_ARGUMENT,
              "out is null");
  quantizer.struct_size = 8;
  CHECK_FAILS(rq_kv_parse_quantizer("kivi", &quantizer), RQ_KV_INVALID_ARGUMENT,
              "struct_size is 8");

  quantizer = Parse("rtn");
  quantizer.kind = 9;
  CHECK_FAILS(rq_kv_quantizer_name(&quantizer, name, sizeof(name)),
              RQ_KV_INVALID_ARGUMENT, "kind 9");
  quantizer = Parse("rtn");
  quantizer.seed = 3;
  CHECK_FAILS(rq_kv_quantizer_name(&quantizer, name, sizeof(name)),
              RQ_KV_INVALID_ARGUMENT, "doesn't apply");
  quantizer = Parse("turboquant");
  quantizer.value_scale = 0;
  CHECK_FAILS(rq_kv_quantizer_name(&quantizer, name, sizeof(name)),
              RQ_KV_INVALID_ARGUMENT, "value_scale 0");
}

static void SectionsHaveTheFormatsSizes(void) {
  const rq_kv_quantizer kivi = Parse("kivi");
  rq_kv_section_layout layout = {.struct_size = sizeof(layout)};
  CHECK(rq_kv_section_layout_of(&kivi, RQ_KV_KEY, 2, 64, 32, &layout) ==
        RQ_KV_OK);
  CHECK(layout.struct_size == sizeof(layout));
  CHECK(layout.params_bytes == 256 && layout.row_bytes == 16);
  CHECK(layout.codes_offset == 256 && layout.section_bytes == 768);
  CHECK(rq_kv_section_layout_of(NULL, RQ_KV_VALUE, 16, 64, 32, &layout) ==
        RQ_KV_OK);
  CHECK(layout.params_bytes == 0 && layout.section_bytes == 4096);
  CHECK_FAILS(rq_kv_section_layout_of(NULL, RQ_KV_VALUE, 4, 64, 32, &layout),
              RQ_KV_INVALID_ARGUMENT, "quantizer is null");
  CHECK_FAILS(rq_kv_section_layout_of(&kivi, 2, 4, 64, 32, &layout),
              RQ_KV_INVALID_ARGUMENT, "tensor 2");
  CHECK_FAILS(rq_kv_section_layout_of(&kivi, RQ_KV_KEY, 9, 64, 32, &layout),
              RQ_KV_INVALID_ARGUMENT, "width 9");
}

static void TokensComeBack(void) {
  const rq_kv_cache cache = Create();
  const rq_kv_const_tensor k = In(keys), v = In(values);
  const rq_kv_tensor read = Out(out);
  int64_t sequence = 0, length = -1;
  CHECK(rq_kv_sequence_add(cache, &sequence) == RQ_KV_OK);
  CHECK(rq_kv_append(cache, sequence, 1, kTokens, &k, &v) == RQ_KV_OK);
  CHECK(rq_kv_sequence_length(cache, sequence, 1, &length) == RQ_KV_OK);
  CHECK(length == kTokens);
  CHECK(rq_kv_sequence_length(cache, sequence, 0, &length) == RQ_KV_OK);
  CHECK(length == 0);

  /* Layer 1, head 0, K is fp16: exact, as keys are small multiples of 1/64. */
  CHECK(rq_kv_gather(cache, sequence, 1, 0, kTokens, &read, NULL) == RQ_KV_OK);
  CHECK(memcmp(out, keys, kTokens * kDim * sizeof(float)) == 0);
  /* Head 0, V is 5 bits: sinks and window exact, the middle near. */
  CHECK(rq_kv_gather(cache, sequence, 1, 0, kTokens, NULL, &read) == RQ_KV_OK);
  CHECK(memcmp(out, values, 4 * kDim * sizeof(float)) == 0);
  CHECK(memcmp(out + 84 * kDim, values + 84 * kDim,
               16 * kDim * sizeof(float)) == 0);
  CHECK(memcmp(out + 40 * kDim, values + 40 * kDim, kDim * sizeof(float)) != 0);
  for (int i = 0; i < kTokens * kDim; ++i) {
    CHECK(fabsf(out[i] - values[i]) < 4.0f / 31.0f);
  }
  CHECK_FAILS(rq_kv_gather(cache, sequence, 1, 90, 11, &read, NULL),
              RQ_KV_OUT_OF_RANGE, "which has 100");
  CHECK(rq_kv_cache_destroy(cache) == RQ_KV_OK);
}

static void BadValuesAreRefusedByName(void) {
  const rq_kv_cache cache = Create();
  const rq_kv_const_tensor k = In(keys), v = In(values);
  int64_t sequence = 0, length = -1;
  CHECK(rq_kv_sequence_add(cache, &sequence) == RQ_KV_OK);
  const float saved = values[(1 * kTokens + 50) * kDim + 3];
  values[(1 * kTokens + 50) * kDim + 3] = NAN;
  CHECK_FAILS(rq_kv_append(cache, sequence, 0, kTokens, &k, &v),
              RQ_KV_DATA_LOSS, "layer 0, head 1, V, token 50, channel 3");
  values[(1 * kTokens + 50) * kDim + 3] = saved;
  CHECK(rq_kv_sequence_length(cache, sequence, 0, &length) == RQ_KV_OK);
  CHECK(length == 0);
  CHECK(rq_kv_append(cache, sequence, 0, kTokens, &k, &v) == RQ_KV_OK);
  CHECK(rq_kv_cache_destroy(cache) == RQ_KV_OK);
}

static void BytesAreCounted(void) {
  const rq_kv_cache cache = Create();
  const rq_kv_const_tensor k = In(keys), v = In(values);
  int64_t sequence = 0, first = 0, second = 0, all = 0, bytes = 0;
  CHECK(rq_kv_page_bytes(cache, 0, &first) == RQ_KV_OK);
  CHECK(rq_kv_page_bytes(cache, 1, &second) == RQ_KV_OK);
  CHECK(rq_kv_page_bytes(cache, -1, &all) == RQ_KV_OK);
  CHECK(all == first + second && first > 0 && first != second);
  CHECK_FAILS(rq_kv_page_bytes(cache, 2, &all), RQ_KV_INVALID_ARGUMENT,
              "layer 2");
  const int64_t token = kGroups * kDim * 2;
  CHECK(rq_kv_sequence_bytes(cache, 17, &bytes) == RQ_KV_OK);
  CHECK(bytes == all + 17 * token);
  CHECK(rq_kv_sequence_bytes(cache, 100, &bytes) == RQ_KV_OK);
  CHECK(bytes == 3 * all + 20 * token);
  CHECK_FAILS(rq_kv_sequence_bytes(cache, -1, &bytes), RQ_KV_INVALID_ARGUMENT,
              "length -1");

  CHECK(rq_kv_sequence_add(cache, &sequence) == RQ_KV_OK);
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    CHECK(rq_kv_append(cache, sequence, layer, kTokens, &k, &v) == RQ_KV_OK);
  }
  CHECK(rq_kv_allocated_bytes(cache, sequence, &bytes) == RQ_KV_OK);
  /* The one kivi K group has room for 31 tokens that wait for it to close. */
  CHECK(bytes == 3 * all + 20 * token + 31 * kDim * 2);
  CHECK(rq_kv_sequence_remove(cache, sequence) == RQ_KV_OK);
  CHECK(rq_kv_free_page_bytes(cache, &bytes) == RQ_KV_OK);
  CHECK(bytes == 3 * all);
  CHECK(rq_kv_release_free_pages(cache) == RQ_KV_OK);
  CHECK(rq_kv_free_page_bytes(cache, &bytes) == RQ_KV_OK);
  CHECK(bytes == 0);
  CHECK(rq_kv_cache_destroy(cache) == RQ_KV_OK);
}

static void StaleAndInventedHandlesAreErrors(void) {
  const rq_kv_cache cache = Create();
  const rq_kv_const_tensor k = In(keys);
  int64_t sequence = 0, n = 0;
  CHECK(rq_kv_sequence_add(cache, &sequence) == RQ_KV_OK);
  CHECK_FAILS(rq_kv_sequence_remove(cache, sequence + 1), RQ_KV_NOT_FOUND,
              "no sequence");
  CHECK(rq_kv_cache_destroy(cache) == RQ_KV_OK);
  const rq_kv_cache bad[] = {cache, 0, cache + 1000};
  for (int i = 0; i < 3; ++i) {
    CHECK_FAILS(rq_kv_cache_destroy(bad[i]), RQ_KV_NOT_FOUND, "no cache");
    CHECK(rq_kv_sequence_add(bad[i], &n) == RQ_KV_NOT_FOUND);
    CHECK(rq_kv_sequence_remove(bad[i], sequence) == RQ_KV_NOT_FOUND);
    CHECK(rq_kv_append(bad[i], sequence, 0, 1, &k, &k) == RQ_KV_NOT_FOUND);
    CHECK(rq_kv_gather(bad[i], sequence, 0, 0, 0, NULL, NULL) ==
          RQ_KV_NOT_FOUND);
    CHECK(rq_kv_sequence_length(bad[i], sequence, 0, &n) == RQ_KV_NOT_FOUND);
    CHECK(rq_kv_allocated_bytes(bad[i], sequence, &n) == RQ_KV_NOT_FOUND);
    CHECK(rq_kv_sequence_bytes(bad[i], 1, &n) == RQ_KV_NOT_FOUND);
    CHECK(rq_kv_page_bytes(bad[i], 0, &n) == RQ_KV_NOT_FOUND);
    CHECK(rq_kv_free_page_bytes(bad[i], &n) == RQ_KV_NOT_FOUND);
    CHECK(rq_kv_release_free_pages(bad[i]) == RQ_KV_NOT_FOUND);
  }
  CHECK(Create() != cache);
}

static void BadConfigsAreErrors(void) {
  rq_kv_cache cache = 77;
  rq_kv_cache_config config = Config();
  CHECK_FAILS(rq_kv_cache_create(NULL, &cache), RQ_KV_INVALID_ARGUMENT,
              "config is null");
  CHECK_FAILS(rq_kv_cache_create(&config, NULL), RQ_KV_INVALID_ARGUMENT,
              "out is null");
  config.struct_size = 4;
  CHECK_FAILS(rq_kv_cache_create(&config, &cache), RQ_KV_INVALID_ARGUMENT,
              "config->struct_size is 4");
  config.struct_size = 0xdeadbeef;
  CHECK_FAILS(rq_kv_cache_create(&config, &cache), RQ_KV_INVALID_ARGUMENT,
              "config->struct_size is 3735928559");
  config = Config();
  config.head_dim = 33;
  CHECK_FAILS(rq_kv_cache_create(&config, &cache), RQ_KV_INVALID_ARGUMENT,
              "33");
  config = Config();
  config.num_groups = 7;
  CHECK_FAILS(rq_kv_cache_create(&config, &cache), RQ_KV_INVALID_ARGUMENT,
              "7 group formats");
  config = Config();
  config.width = NULL;
  CHECK_FAILS(rq_kv_cache_create(&config, &cache), RQ_KV_INVALID_ARGUMENT,
              "config->width is null");
  config = Config();
  config.quantizer_index = NULL;
  CHECK_FAILS(rq_kv_cache_create(&config, &cache), RQ_KV_INVALID_ARGUMENT,
              "config->quantizer_index is null");
  config = Config();
  config.quantizers = NULL;
  CHECK_FAILS(rq_kv_cache_create(&config, &cache), RQ_KV_INVALID_ARGUMENT,
              "config->quantizers is null");
  config = Config();
  config.num_quantizers = 1;
  CHECK_FAILS(rq_kv_cache_create(&config, &cache), RQ_KV_INVALID_ARGUMENT,
              "config->quantizer_index[1] is 1");
  config = Config();
  width[2] = 12;
  CHECK_FAILS(rq_kv_cache_create(&config, &cache), RQ_KV_INVALID_ARGUMENT,
              "config->width[2] is 12");
  width[2] = 8;
  config = Config();
  quantizers[1].struct_size += 8;
  CHECK_FAILS(rq_kv_cache_create(&config, &cache), RQ_KV_INVALID_ARGUMENT,
              "config->quantizers[1]");
  config = Config();
  CHECK(cache == 77);

  /* All fp16 needs no quantizers. */
  uint32_t all_fp16[kGroups];
  for (int g = 0; g < kGroups; ++g) all_fp16[g] = 16;
  config.width = all_fp16;
  config.quantizers = NULL;
  config.num_quantizers = 0;
  config.quantizer_index = NULL;
  CHECK(rq_kv_cache_create(&config, &cache) == RQ_KV_OK);
  CHECK(rq_kv_cache_destroy(cache) == RQ_KV_OK);
}

static void StructsOfNewerCallersAreTakenWhenTheRestIsZero(void) {
  struct {
    rq_kv_cache_config known;
    uint64_t later;
  } config = {.known = Config(), .later = 0};
  config.known.struct_size = sizeof(config);
  rq_kv_cache cache = 0;
  CHECK(rq_kv_cache_create(&config.known, &cache) == RQ_KV_OK);
  CHECK(rq_kv_cache_destroy(cache) == RQ_KV_OK);
  config.later = 1;
  CHECK_FAILS(rq_kv_cache_create(&config.known, &cache), RQ_KV_INVALID_ARGUMENT,
              "doesn't know");
}

static void BadTensorsAreErrors(void) {
  const rq_kv_cache cache = Create();
  int64_t sequence = 0;
  CHECK(rq_kv_sequence_add(cache, &sequence) == RQ_KV_OK);
  const rq_kv_const_tensor good = In(keys);
  rq_kv_const_tensor bad = good;
  CHECK_FAILS(rq_kv_append(cache, sequence, 0, 1, NULL, &good),
              RQ_KV_INVALID_ARGUMENT, "keys is null");
  bad.data = NULL;
  CHECK_FAILS(rq_kv_append(cache, sequence, 0, 1, &good, &bad),
              RQ_KV_INVALID_ARGUMENT, "values: null");
  bad = good;
  bad.dtype = 3;
  CHECK_FAILS(rq_kv_append(cache, sequence, 0, 1, &bad, &good),
              RQ_KV_INVALID_ARGUMENT, "keys: dtype 3");
  bad = good;
  bad.reserved = 1;
  CHECK_FAILS(rq_kv_append(cache, sequence, 0, 1, &bad, &good),
              RQ_KV_INVALID_ARGUMENT, "keys->reserved");
  bad = good;
  bad.struct_size = 0;
  CHECK_FAILS(rq_kv_append(cache, sequence, 0, 1, &good, &bad),
              RQ_KV_INVALID_ARGUMENT, "values->struct_size is 0");
  CHECK_FAILS(rq_kv_append(cache, sequence, 5, 1, &good, &good),
              RQ_KV_INVALID_ARGUMENT, "layer 5");
  const rq_kv_tensor empty = Out(NULL);
  CHECK_FAILS(rq_kv_gather(cache, sequence, 0, 0, 0, &empty, NULL),
              RQ_KV_INVALID_ARGUMENT, "keys->data is null");
  CHECK(rq_kv_cache_destroy(cache) == RQ_KV_OK);
}

int main(void) {
  /* Multiples of 1/64 in (-2, 2), which fp16 holds exactly. */
  uint32_t state = 1;
  for (int i = 0; i < kElements; ++i) {
    state = state * 1664525u + 1013904223u;
    keys[i] = (float)((int)(state >> 24) - 128) / 64.0f;
    state = state * 1664525u + 1013904223u;
    values[i] = (float)((int)(state >> 24) - 128) / 64.0f;
  }
  CHECK(strcmp(rq_kv_last_error_message(), "") == 0);
  VersionsMatchTheHeader();
  QuantizersParseAndPrint();
  SectionsHaveTheFormatsSizes();
  TokensComeBack();
  BadValuesAreRefusedByName();
  BytesAreCounted();
  StaleAndInventedHandlesAreErrors();
  BadConfigsAreErrors();
  StructsOfNewerCallersAreTakenWhenTheRestIsZero();
  BadTensorsAreErrors();
  puts("ok");
  return 0;
}
