#include "kernels/cuda/task.h"

#include <string>

namespace ratequant::kv::cuda {

FaultPlace PlaceOfFault(FaultWord word) {
  return {static_cast<uint32_t>(word >> 36),
          static_cast<uint32_t>(word >> 16 & 0xFFFFF),
          static_cast<uint32_t>(word >> 4 & 0xFFF),
          static_cast<Fault>(word & 0xF)};
}

Status StatusOfFault(FaultWord word) {
  if (word == kNoFault) return Status();
  const FaultPlace fault = PlaceOfFault(word);
  const std::string task = "task " + std::to_string(fault.task);
  const std::string place = " at row " + std::to_string(fault.row) +
                            ", channel " + std::to_string(fault.channel) +
                            " of " + task;
  switch (fault.fault) {
    case Fault::kNan:
      return {StatusCode::kDataLoss, "NaN" + place};
    case Fault::kInfinity:
      return {StatusCode::kDataLoss, "Inf" + place};
    case Fault::kNegativeInfinity:
      return {StatusCode::kDataLoss, "-Inf" + place};
    case Fault::kTooLarge:
      return {StatusCode::kDataLoss,
              "a value beyond fp16's largest magnitude, 65504," + place};
    case Fault::kFormat:
      return InvalidArgument(task + " names a format that isn't in the table");
    case Fault::kRange:
      return InvalidArgument(task + ": its rows aren't within the page, or " +
                             "are more than the launch allows");
    case Fault::kGranule:
      return InvalidArgument(task + ": its rows aren't whole groups of tokens");
    case Fault::kPointer:
      return InvalidArgument(
          task + ": its section or rows are null or not a multiple of 16");
  }
  return {StatusCode::kInternal,
          "unknown fault word " + std::to_string(word) + " of " + task};
}

}  // namespace ratequant::kv::cuda
