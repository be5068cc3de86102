#ifndef RATEQUANT_SERVICES_ALLOCATION_TIMESTAMP_H_
#define RATEQUANT_SERVICES_ALLOCATION_TIMESTAMP_H_

#include <cstdint>

#include "absl/time/time.h"
#include "google/protobuf/timestamp.pb.h"

namespace ratequant::allocation {

// A time as protobuf has it, and back.
inline absl::Time GetTime(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) +
         absl::Nanoseconds(time.nanos());
}

inline void SetTime(absl::Time time, google::protobuf::Timestamp* out) {
  const int64_t seconds = absl::ToUnixSeconds(time);
  out->set_seconds(seconds);
  out->set_nanos(static_cast<int32_t>(
      absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
}

}  // namespace ratequant::allocation

#endif  // RATEQUANT_SERVICES_ALLOCATION_TIMESTAMP_H_
