#include "kernels/c_api/convert.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/c_api/boundary.h"
#include "kernels/quantizers/limits.h"
#include "ratequant/kv/bit_width.h"

namespace ratequant::kv {
namespace {

absl::Status CheckKind(int32_t kind) {
  if (kind >= RQ_KV_RTN && kind <= RQ_KV_TCQ) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "quantizer kind ", kind,
      " is not supported; supported are 1 (rtn), 2 (kivi), 3 (quarot), 4 "
      "(turboquant) and 5 (tcq)"));
}

absl::Status CheckScale(absl::string_view field, int32_t scale) {
  if (scale == RQ_KV_SCALE_L2 || scale == RQ_KV_SCALE_UNBIASED) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("quantizer ", field, " ", scale,
                   " is not supported; supported are 1 (l2) and 2 (unbiased)"));
}

// Parameters that don't apply to a kind must hold their defaults, so that equal
// quantizers have equal structs.
absl::Status CheckUnused(const QuantizerSpec& spec) {
  QuantizerSpec used = QuantizerSpec{};
  used.kind = spec.kind;
  if (spec.kind == QuantizerKind::kKivi) used.group_size = spec.group_size;
  if (IsRotated(spec.kind)) used.seed = spec.seed;
  if (HasRowScale(spec.kind)) {
    used.key_scale = spec.key_scale;
    used.value_scale = spec.value_scale;
  }
  if (used == spec) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "quantizer ", std::string(QuantizerId(spec.kind)),
      " has a parameter that doesn't apply to it; leave those at their "
      "defaults"));
}

// Quantizers are read one by one: they are as far apart as the caller's struct
// is long.
absl::StatusOr<std::vector<QuantizerSpec>> Quantizers(
    const rq_kv_cache_config& config) {
  std::vector<QuantizerSpec> specs;
  if (config.num_quantizers == 0) return specs;
  if (config.quantizers == nullptr) return NullArgument("config->quantizers");
  const size_t stride = config.quantizers[0].struct_size;
  const uint8_t* at = reinterpret_cast<const uint8_t*>(config.quantizers);
  for (size_t i = 0; i < config.num_quantizers; ++i, at += stride) {
    const auto* quantizer = reinterpret_cast<const rq_kv_quantizer*>(at);
    if (quantizer->struct_size != stride) {
      return absl::InvalidArgumentError(
          absl::StrCat("config->quantizers[", i, "].struct_size is ",
                       quantizer->struct_size, ", the first one's ", stride));
    }
    absl::StatusOr<QuantizerSpec> spec = FromC(quantizer);
    if (!spec.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "config->quantizers[", i, "]: ", spec.status().message()));
    }
    specs.push_back(*spec);
  }
  return specs;
}

absl::StatusOr<std::vector<GroupFormat>> Groups(
    const rq_kv_cache_config& config, const std::vector<QuantizerSpec>& specs) {
  std::vector<GroupFormat> groups(config.num_groups);
  if (config.num_groups == 0) return groups;
  if (config.width == nullptr) return NullArgument("config->width");
  for (size_t g = 0; g < groups.size(); ++g) {
    const uint32_t width = config.width[g];
    if (width > kFp16Width || !IsStorageWidth(static_cast<int>(width))) {
      return absl::InvalidArgumentError(
          absl::StrCat("config->width[", g, "] is ", width,
                       "; supported are 1 to 8, and 16 (fp16)"));
    }
    groups[g].width = static_cast<int>(width);
    if (width == kFp16Width) continue;
    if (config.quantizer_index == nullptr) {
      return NullArgument("config->quantizer_index");
    }
    const uint32_t index = config.quantizer_index[g];
    if (index >= specs.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("config->quantizer_index[", g, "] is ", index,
                       ", but there are ", specs.size(), " quantizers"));
    }
    groups[g].quantizer = specs[index];
  }
  return groups;
}

template <typename Heads, typename T>
absl::StatusOr<Heads> CopyTensor(absl::string_view name, const T* tensor) {
  T in;
  if (absl::Status status = CopyIn(name, tensor, &in); !status.ok()) {
    return status;
  }
  if (in.reserved != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, "->reserved is ", in.reserved, ", not 0"));
  }
  return Heads{in.data, static_cast<DType>(in.dtype), in.head_stride,
               in.row_stride};
}

}  // namespace

absl::StatusOr<QuantizerSpec> FromC(const rq_kv_quantizer* quantizer) {
  rq_kv_quantizer in;
  absl::Status status = CopyIn("quantizer", quantizer, &in);
  if (status.ok()) status = CheckKind(in.kind);
  if (status.ok()) status = CheckScale("key_scale", in.key_scale);
  if (status.ok()) status = CheckScale("value_scale", in.value_scale);
  if (!status.ok()) return status;
  QuantizerSpec spec;
  spec.kind = static_cast<QuantizerKind>(in.kind);
  spec.group_size = in.group_size;
  spec.seed = in.seed;
  spec.key_scale = static_cast<RowScale>(in.key_scale);
  spec.value_scale = static_cast<RowScale>(in.value_scale);
  status = CheckUnused(spec);
  if (!status.ok()) return status;
  return spec;
}

rq_kv_quantizer ToC(const QuantizerSpec& spec) {
  rq_kv_quantizer out;
  out.struct_size = sizeof(out);
  out.kind = static_cast<int32_t>(spec.kind);
  out.group_size = spec.group_size;
  out.seed = spec.seed;
  out.key_scale = static_cast<int32_t>(spec.key_scale);
  out.value_scale = static_cast<int32_t>(spec.value_scale);
  return out;
}

rq_kv_section_layout ToC(const SectionLayout& layout) {
  return {sizeof(rq_kv_section_layout), layout.params_bytes, layout.row_bytes,
          layout.codes_offset, layout.section_bytes};
}

absl::StatusOr<CacheSetup> FromC(const rq_kv_cache_config* config) {
  rq_kv_cache_config in;
  absl::Status status =
      CopyIn("config", config, &in, offsetof(rq_kv_cache_config, query_heads));
  if (!status.ok()) return status;
  absl::StatusOr<std::vector<QuantizerSpec>> specs = Quantizers(in);
  if (!specs.ok()) return specs.status();
  absl::StatusOr<std::vector<GroupFormat>> groups = Groups(in, *specs);
  if (!groups.ok()) return groups.status();
  CacheSetup out;
  out.config.geometry = {in.layers, in.kv_heads, in.head_dim, in.query_heads};
  out.config.groups = *std::move(groups);
  out.config.page_tokens = in.page_tokens;
  out.config.sink_tokens = in.sink_tokens;
  out.config.window = in.window;
  if (in.num_means != 0) {
    if (in.means == nullptr) return NullArgument("config->means");
    out.config.means.assign(in.means, in.means + in.num_means);
  }
  out.options.device = {static_cast<DeviceKind>(in.device), in.device_ordinal};
  out.options.num_pages = in.num_pages;
  out.options.max_tokens = in.max_tokens;
  if (in.max_sequences != 0) out.options.max_sequences = in.max_sequences;
  return out;
}

absl::StatusOr<AttentionParams> FromC(const rq_kv_attention_params* params) {
  rq_kv_attention_params in;
  absl::Status status = CopyIn("params", params, &in);
  if (!status.ok()) return status;
  return AttentionParams{in.query_heads, in.softmax_scale, in.soft_cap,
                         in.sliding_window};
}

absl::StatusOr<ConstHeads> FromC(absl::string_view name,
                                 const rq_kv_const_tensor* tensor) {
  return CopyTensor<ConstHeads>(name, tensor);
}

absl::StatusOr<MutableHeads> FromC(absl::string_view name,
                                   const rq_kv_tensor* tensor) {
  if (tensor == nullptr) return MutableHeads{};
  absl::StatusOr<MutableHeads> heads = CopyTensor<MutableHeads>(name, tensor);
  if (heads.ok() && heads->data == nullptr) {
    return NullArgument(absl::StrCat(name, "->data"));
  }
  return heads;
}

}  // namespace ratequant::kv
