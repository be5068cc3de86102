#include "services/common/trace.h"

#include <algorithm>
#include <cstdint>
#include <random>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace ratequant {
namespace {

constexpr size_t kVersion00Length = 55;
constexpr size_t kMaxRequestId = 128;
constexpr size_t kMaxTraceState = 512;

thread_local const CallIds* current_call = nullptr;

bool IsLowerHex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
  });
}

bool IsZero(absl::string_view text) {
  return text.find_first_not_of('0') == absl::string_view::npos;
}

absl::string_view Find(const grpc::ServerContextBase& context,
                       const char* key) {
  const auto found = context.client_metadata().find(key);
  if (found == context.client_metadata().end()) return "";
  return absl::string_view(found->second.data(), found->second.size());
}

}  // namespace

std::string TraceParent::ToString() const {
  return absl::StrCat("00-", trace_id, "-", parent_id, "-", flags);
}

std::optional<TraceParent> ParseTraceParent(absl::string_view text) {
  if (text.size() < kVersion00Length) return std::nullopt;
  const absl::string_view version = text.substr(0, 2);
  const bool longer = text.size() > kVersion00Length;
  if (version == "ff" || (longer && (version == "00" || text[55] != '-'))) {
    return std::nullopt;
  }
  const absl::string_view trace = text.substr(3, 32),
                          span = text.substr(36, 16),
                          flags = text.substr(53, 2);
  if (text[2] != '-' || text[35] != '-' || text[52] != '-' ||
      !IsLowerHex(version) || !IsLowerHex(trace) || !IsLowerHex(span) ||
      !IsLowerHex(flags) || IsZero(trace) || IsZero(span)) {
    return std::nullopt;
  }
  return TraceParent{std::string(trace), std::string(span), std::string(flags)};
}

bool IsRequestId(absl::string_view text) {
  return !text.empty() && text.size() <= kMaxRequestId &&
         std::all_of(text.begin(), text.end(), absl::ascii_isgraph);
}

std::string RandomHex(int digits) {
  static constexpr char kDigits[] = "0123456789abcdef";
  thread_local std::mt19937_64 random{std::random_device{}()};
  std::string hex;
  uint64_t bits = 0;
  for (int i = 0; i < digits; ++i, bits >>= 4) {
    if (i % 16 == 0) bits = random();
    hex.push_back(kDigits[bits & 15]);
  }
  return hex;
}

std::vector<std::pair<std::string, std::string>> CallIds::Metadata() const {
  std::vector<std::pair<std::string, std::string>> metadata;
  if (!request_id.empty()) metadata.emplace_back(kRequestIdKey, request_id);
  if (!trace.has_value()) return metadata;
  metadata.emplace_back(kTraceParentKey, trace->ToString());
  if (!trace_state.empty()) metadata.emplace_back(kTraceStateKey, trace_state);
  return metadata;
}

CallIds CallIdsOf(const grpc::ServerContextBase& context) {
  CallIds ids;
  ids.request_id = std::string(Find(context, kRequestIdKey));
  ids.trace = ParseTraceParent(Find(context, kTraceParentKey));
  const absl::string_view state = Find(context, kTraceStateKey);
  if (state.size() <= kMaxTraceState) ids.trace_state = std::string(state);
  return ids;
}

CallScope::CallScope(CallIds ids) : ids_(std::move(ids)), outer_(current_call) {
  current_call = &ids_;
}

CallScope::~CallScope() { current_call = outer_; }

const CallIds* CurrentCall() { return current_call; }

}  // namespace ratequant
