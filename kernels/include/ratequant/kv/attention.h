#ifndef RATEQUANT_KV_ATTENTION_H_
#define RATEQUANT_KV_ATTENTION_H_

#include <cstdint>

namespace ratequant::kv {

// Queries of one sequence in one call of decode attention.
inline constexpr int kMaxDecodeQueries = 8;

// What decode attention computes, in plain C++ for host and device. For the
// query at position p and query head h, which reads KV head
// h / (query_heads / kv_heads):
//   s_t = softmax_scale * <q, k_t>, and soft_cap * tanh(s_t / soft_cap) of it
//         when soft_cap is above 0,
//   out = sum over t of softmax(s)_t * v_t,
// over the positions t <= p, and t > p - sliding_window when sliding_window is
// above 0.
struct AttentionParams {
  int32_t query_heads = 0;     // a multiple of kv_heads
  float softmax_scale = 0;     // 1 / sqrt(head_dim) for most models; above 0
  float soft_cap = 0;          // 0: none
  int32_t sliding_window = 0;  // 0: none
};

}  // namespace ratequant::kv

#endif  // RATEQUANT_KV_ATTENTION_H_
