#ifndef RATEQUANT_KERNELS_QUANTIZERS_VISIBLE_TOKENS_H_
#define RATEQUANT_KERNELS_QUANTIZERS_VISIBLE_TOKENS_H_

#include "kernels/quantizers/host_device.h"

namespace ratequant::kv {

// Which tokens of its sequence a query sees when d2 is measured.
struct TokenView {
  int sliding_window = 0;  // 0: none
  int sink_tokens = 0;     // exact
  int exact_window = 0;    // newest tokens that are exact
};

// The tokens [first, last], of which [first_quantized, end_quantized) are the
// group's decoded ones.
struct VisibleTokens {
  int first = 0;
  int last = 0;
  int first_quantized = 0;
  int end_quantized = 0;  // not below first_quantized

  RQ_HOST_DEVICE constexpr bool any_quantized() const {
    return end_quantized > first_quantized;
  }
};

RQ_HOST_DEVICE constexpr VisibleTokens TokensSeenBy(int query,
                                                    const TokenView& view) {
  VisibleTokens seen;
  const int begin = query + 1 - view.sliding_window;
  seen.first = view.sliding_window > 0 && begin > 0 ? begin : 0;
  seen.last = query;
  seen.first_quantized =
      seen.first > view.sink_tokens ? seen.first : view.sink_tokens;
  const int end = query + 1 - view.exact_window;
  seen.end_quantized = end > seen.first_quantized ? end : seen.first_quantized;
  return seen;
}

}  // namespace ratequant::kv

#endif  // RATEQUANT_KERNELS_QUANTIZERS_VISIBLE_TOKENS_H_
