#ifndef RATEQUANT_CLIENTS_CPP_EXAMPLES_DECODE_LOOP_STEP_ROWS_H_
#define RATEQUANT_CLIENTS_CPP_EXAMPLES_DECODE_LOOP_STEP_ROWS_H_

#include <cstdint>
#include <vector>

#include "ratequant/kv/heads.h"
#include "ratequant/kv/tensor.h"

namespace ratequant::examples {

// One step's rows of one tensor, one token of each sequence: where a model
// would have its projection write them.
class StepRows {
 public:
  // For `heads` heads of up to `max_rows` rows.
  StepRows(int heads, int max_rows, int head_dim, kv::DType dtype);

  // Copies token `token` of a sequence's heads [heads, tokens, head_dim], of
  // the same dtype, to row `row`.
  void Set(int row, const kv::ConstHeads& sequence, int token);

  // [heads, max_rows, head_dim]; valid as long as this object.
  kv::ConstHeads heads() const;

 private:
  const int heads_;
  const int max_rows_;
  const int head_dim_;
  const kv::DType dtype_;
  std::vector<uint8_t> data_;
};

}  // namespace ratequant::examples

#endif  // RATEQUANT_CLIENTS_CPP_EXAMPLES_DECODE_LOOP_STEP_ROWS_H_
