#ifndef RATEQUANT_KV_SECTION_LAYOUT_H_
#define RATEQUANT_KV_SECTION_LAYOUT_H_

#include <cstddef>

namespace ratequant::kv {

// A section is the packed form of one page of one group: `page_tokens` rows of
// `head_dim` channels, parameters first, then one row of codes per token
// (kernels/FORMAT.md). All sizes in bytes.
struct SectionLayout {
  size_t params_bytes = 0;   // scales, zero points, norms
  size_t row_bytes = 0;      // codes of one token
  size_t codes_offset = 0;   // first row, a multiple of 16
  size_t section_bytes = 0;  // the whole, a multiple of 16
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KV_SECTION_LAYOUT_H_
