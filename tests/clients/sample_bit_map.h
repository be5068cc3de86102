#ifndef RATEQUANT_TESTS_CLIENTS_SAMPLE_BIT_MAP_H_
#define RATEQUANT_TESTS_CLIENTS_SAMPLE_BIT_MAP_H_

#include <string>

#include "absl/strings/string_view.h"
#include "ratequant/v1/allocation_service.pb.h"

namespace ratequant::testing {

// The shape of a sample map.
struct SampleShape {
  int layers = 2;
  int kv_heads = 2;
  int head_dim = 64;
};

// An answer as an allocator gives it, its digest included: every group of
// models/m in kivi of `width` bits, 4 sinks.
v1::GetBitMapResponse SampleAnswer(int width, const SampleShape& shape = {});

// The query it answers.
v1::GetBitMapRequest SampleQuery();

}  // namespace ratequant::testing

#endif  // RATEQUANT_TESTS_CLIENTS_SAMPLE_BIT_MAP_H_
