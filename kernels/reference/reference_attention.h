#ifndef RATEQUANT_KERNELS_REFERENCE_REFERENCE_ATTENTION_H_
#define RATEQUANT_KERNELS_REFERENCE_REFERENCE_ATTENTION_H_

#include <vector>

#include "kernels/paging/sequence_step.h"
#include "ratequant/kv/attention.h"
#include "ratequant/kv/heads.h"

namespace ratequant::kv {

// The oracle of decode attention: AttentionParams' formulas in fp64, over keys
// and values that are plain rows. Row t of `keys` and `values` is position t,
// of begin + count at least; row first_row + i of `queries` is position begin +
// i. Returns [count, query_heads, head_dim].
std::vector<double> ReferenceAttention(const AttentionParams& params,
                                       int kv_heads, int head_dim,
                                       const SequenceStep& step,
                                       const ConstHeads& keys,
                                       const ConstHeads& values,
                                       const ConstHeads& queries);

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_REFERENCE_REFERENCE_ATTENTION_H_
