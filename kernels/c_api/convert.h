#ifndef RATEQUANT_KERNELS_C_API_CONVERT_H_
#define RATEQUANT_KERNELS_C_API_CONVERT_H_

#include "absl/status/statusor.h"
#include "ratequant/kv/c_api.h"
#include "ratequant/kv/kv_cache.h"
#include "ratequant/kv/kv_layout.h"
#include "ratequant/kv/quantizer.h"

// C structs to and from C++ ones. Errors are INVALID_ARGUMENT and name the
// field.

namespace ratequant::kv {

absl::StatusOr<QuantizerSpec> FromC(const rq_kv_quantizer* quantizer);
rq_kv_quantizer ToC(const QuantizerSpec& spec);

rq_kv_section_layout ToC(const SectionLayout& layout);

// What a cache stores, and how much of it.
struct CacheSetup {
  KvCacheConfig config;
  KvCacheOptions options;
};
absl::StatusOr<CacheSetup> FromC(const rq_kv_cache_config* config);

absl::StatusOr<AttentionParams> FromC(const rq_kv_attention_params* params);

// `name` is "keys" or "values".
absl::StatusOr<ConstHeads> FromC(absl::string_view name,
                                 const rq_kv_const_tensor* tensor);

// Null becomes a tensor that isn't wanted.
absl::StatusOr<MutableHeads> FromC(absl::string_view name,
                                   const rq_kv_tensor* tensor);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_C_API_CONVERT_H_
