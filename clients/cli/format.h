#ifndef RATEQUANT_CLIENTS_CLI_FORMAT_H_
#define RATEQUANT_CLIENTS_CLI_FORMAT_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace ratequant::cli {

// "8,192".
std::string FormatCount(uint64_t count);

// Fixed decimals: "3.142".
std::string FormatFixed(double value, int decimals);

// Rounded to `digits` significant digits, in plain notation from 0.0001 to
// 999,999, else with an exponent: "0.0123", "1.23e-05". Zero is "0".
std::string FormatSignificant(double value, int digits);

// "38%" of 0.381; "0.4%" below one per cent.
std::string FormatPercent(double fraction);

// Four significant digits in the largest unit that fits: "512 bytes",
// "31.25 GiB".
std::string FormatBytes(int64_t bytes);

// Whole seconds: "42 s", "3 min 05 s", "2 h 07 min".
std::string FormatTimeSpan(absl::Duration duration);

absl::Duration ToDuration(const google::protobuf::Duration& duration);

// Universal time to the minute, "2026-11-24 08:04"; "-" when unset.
std::string FormatTimestamp(const google::protobuf::Timestamp& time);

// The first 12 digits of a hexadecimal id, or all of any other.
std::string ShortId(const std::string& id);

}  // namespace ratequant::cli

#endif  // RATEQUANT_CLIENTS_CLI_FORMAT_H_
