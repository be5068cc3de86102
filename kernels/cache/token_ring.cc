#include "kernels/cache/token_ring.h"

#include <algorithm>
#include <new>

#include "kernels/cache/half_rows.h"

namespace ratequant::kv {

bool TokenRing::Allocate(int64_t capacity, int head_dim) {
  std::unique_ptr<uint16_t[]> data(new (std::nothrow)
                                       uint16_t[capacity * head_dim]);
  if (data == nullptr) return false;
  data_ = std::move(data);
  capacity_ = capacity;
  head_dim_ = head_dim;
  return true;
}

void TokenRing::Write(int64_t first, int64_t count, const ConstRows& rows) {
  for (int64_t done = 0; done < count;) {
    const int64_t run = Run(first + done, count - done);
    RowsToHalf(RowsFrom(rows, done), run, head_dim_, Slot(first + done));
    done += run;
  }
}

void TokenRing::Read(int64_t first, int64_t count,
                     const MutableRows& rows) const {
  for (int64_t done = 0; done < count;) {
    const int64_t run = Run(first + done, count - done);
    HalfToRows(Slot(first + done), run, head_dim_, RowsFrom(rows, done));
    done += run;
  }
}

const uint16_t* TokenRing::Contiguous(int64_t first, int64_t count) const {
  return Run(first, count) == count ? Slot(first) : nullptr;
}

void TokenRing::CopyFrom(const TokenRing& other, int64_t first, int64_t count) {
  for (int64_t done = 0; done < count;) {
    const int64_t run = other.Run(first + done, count - done);
    Write(first + done, run,
          {other.Slot(first + done), DType::kFloat16, head_dim_});
    done += run;
  }
}

int64_t TokenRing::Run(int64_t first, int64_t count) const {
  return std::min(count, capacity_ - first % capacity_);
}

}  // namespace ratequant::kv
