#include "ratequant/kv/c_api.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "kernels/c_api/boundary.h"
#include "kernels/c_api/convert.h"
#include "kernels/c_api/handles.h"
#include "ratequant/kv/bit_width.h"
#include "ratequant/kv/codec.h"
#include "ratequant/kv/kv_cache.h"

namespace ratequant::kv {
namespace {

absl::StatusOr<int64_t> PageBytes(const KvCache& cache, int32_t layer) {
  const KvLayout& layout = cache.layout();
  if (layer == -1) return static_cast<int64_t>(layout.page_bytes());
  const int32_t layers = cache.config().geometry.layers;
  if (layer < 0 || layer >= layers) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layer ", layer, " is not in 0 to ", layers - 1, ", nor -1 for all"));
  }
  return static_cast<int64_t>(layout.layers[layer].page_bytes);
}

absl::StatusOr<SectionLayout> LayoutOf(const rq_kv_quantizer* quantizer,
                                       int32_t tensor, int32_t width,
                                       int32_t head_dim, int32_t page_tokens) {
  QuantizerSpec spec;
  if (width != kFp16Width) {
    absl::StatusOr<QuantizerSpec> given = FromC(quantizer);
    if (!given.ok()) return given.status();
    spec = *given;
  }
  return ComputeSectionLayout(spec, static_cast<Tensor>(tensor), width,
                              head_dim, page_tokens);
}

}  // namespace
}  // namespace ratequant::kv

namespace kv = ratequant::kv;

uint32_t rq_kv_abi_version(void) { return RQ_KV_ABI_VERSION; }

uint32_t rq_kv_format_version(void) { return kv::kFormatVersion; }

const char* rq_kv_last_error_message(void) { return kv::LastErrorMessage(); }

rq_kv_status rq_kv_parse_quantizer(const char* text, rq_kv_quantizer* out) {
  return kv::AtBoundary([&]() -> absl::Status {
    if (text == nullptr) return kv::NullArgument("text");
    absl::StatusOr<kv::QuantizerSpec> spec = kv::ParseQuantizer(text);
    if (!spec.ok()) return spec.status();
    return kv::CopyOut("out", kv::ToC(*spec), out);
  });
}

rq_kv_status rq_kv_quantizer_name(const rq_kv_quantizer* quantizer,
                                  char* buffer, size_t buffer_size) {
  return kv::AtBoundary([&]() -> absl::Status {
    absl::StatusOr<kv::QuantizerSpec> spec = kv::FromC(quantizer);
    if (!spec.ok()) return spec.status();
    return kv::CopyText("name", kv::QuantizerName(*spec), buffer, buffer_size);
  });
}

rq_kv_status rq_kv_section_layout_of(const rq_kv_quantizer* quantizer,
                                     int32_t tensor, int32_t width,
                                     int32_t head_dim, int32_t page_tokens,
                                     rq_kv_section_layout* out) {
  return kv::AtBoundary([&]() -> absl::Status {
    absl::StatusOr<kv::SectionLayout> layout =
        kv::LayoutOf(quantizer, tensor, width, head_dim, page_tokens);
    if (!layout.ok()) return layout.status();
    return kv::CopyOut("out", kv::ToC(*layout), out);
  });
}

rq_kv_status rq_kv_cache_create(const rq_kv_cache_config* config,
                                rq_kv_cache* out) {
  return kv::AtBoundary([&]() -> absl::Status {
    if (out == nullptr) return kv::NullArgument("out");
    absl::StatusOr<kv::CacheSetup> given = kv::FromC(config);
    if (!given.ok()) return given.status();
    absl::StatusOr<std::unique_ptr<kv::KvCache>> cache =
        kv::KvCache::Create(given->config, given->options);
    if (!cache.ok()) return cache.status();
    *out = kv::Caches().Add(*std::move(cache));
    return absl::OkStatus();
  });
}

rq_kv_status rq_kv_cache_destroy(rq_kv_cache cache) {
  return kv::AtBoundary([&]() -> absl::Status {
    if (kv::Caches().Remove(cache) == nullptr) return kv::UnknownCache(cache);
    return absl::OkStatus();
  });
}

rq_kv_status rq_kv_sequence_add(rq_kv_cache cache, int64_t* out) {
  return kv::ReadInto(out, cache,
                      [](kv::KvCache& found) { return found.AddSequence(); });
}

rq_kv_status rq_kv_sequence_remove(rq_kv_cache cache, int64_t sequence) {
  return kv::WithCache(cache, [&](kv::KvCache& found) {
    return found.RemoveSequence(sequence);
  });
}

rq_kv_status rq_kv_sequence_length(rq_kv_cache cache, int64_t sequence,
                                   int32_t layer, int64_t* out) {
  return kv::ReadInto(out, cache, [&](kv::KvCache& found) {
    return found.Length(sequence, layer);
  });
}

rq_kv_status rq_kv_allocated_bytes(rq_kv_cache cache, int64_t sequence,
                                   int64_t* out) {
  return kv::ReadInto(out, cache, [&](kv::KvCache& found) {
    return found.AllocatedBytes(sequence);
  });
}

rq_kv_status rq_kv_sequence_bytes(rq_kv_cache cache, int64_t length,
                                  int64_t* out) {
  return kv::ReadInto(
      out, cache, [&](kv::KvCache& found) -> absl::StatusOr<int64_t> {
        if (length < 0) {
          return absl::InvalidArgumentError(
              absl::StrCat("length ", length, " is negative"));
        }
        return kv::SequenceBytes(found.config(), found.layout(), length);
      });
}

rq_kv_status rq_kv_page_bytes(rq_kv_cache cache, int32_t layer, int64_t* out) {
  return kv::ReadInto(out, cache, [&](kv::KvCache& found) {
    return kv::PageBytes(found, layer);
  });
}

rq_kv_status rq_kv_free_page_bytes(rq_kv_cache cache, int64_t* out) {
  return kv::ReadInto(out, cache, [](kv::KvCache& found) {
    return absl::StatusOr<int64_t>(found.FreePageBytes());
  });
}

rq_kv_status rq_kv_release_free_pages(rq_kv_cache cache) {
  return kv::WithCache(cache, [](kv::KvCache& found) {
    found.ReleaseFreePages();
    return absl::OkStatus();
  });
}

rq_kv_status rq_kv_free_pages(rq_kv_cache cache, int64_t* out) {
  return kv::ReadInto(out, cache, [](kv::KvCache& found) {
    return absl::StatusOr<int64_t>(found.FreePages());
  });
}

rq_kv_status rq_kv_reserved_bytes(rq_kv_cache cache, int64_t* out) {
  return kv::ReadInto(out, cache, [](kv::KvCache& found) {
    return absl::StatusOr<int64_t>(found.ReservedBytes());
  });
}

rq_kv_status rq_kv_format_digest(rq_kv_cache cache, char* buffer,
                                 size_t buffer_size) {
  return kv::WithCache(cache, [&](kv::KvCache& found) {
    return kv::CopyText("digest", kv::FormatDigest(found.config()), buffer,
                        buffer_size);
  });
}
