#include "services/common/logging.h"

#include <array>
#include <deque>
#include <memory>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "services/common/status.h"
#include "services/common/trace.h"
#include "spdlog/pattern_formatter.h"
#include "spdlog/sinks/base_sink.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace ratequant {
namespace {

constexpr size_t kRecentProblems = 50;

thread_local const LogFields* current_fields = nullptr;

// Keeps the newest lines, formatted by the thread that logs them: spdlog's own
// ring buffer formats them for whoever reads.
class ProblemSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  std::vector<std::string> Lines() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return {lines_.begin(), lines_.end()};
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    lines_.emplace_back(line.data(), line.size());
    if (lines_.size() > kRecentProblems) lines_.pop_front();
  }
  void flush_() override {}

 private:
  std::deque<std::string> lines_;  // guarded by mutex_
};

// Never destroyed: threads may log until the process ends.
std::shared_ptr<ProblemSink>& Problems() {
  static auto& sink = *new std::shared_ptr<ProblemSink>();
  return sink;
}

class JsonFormatter : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message,
              spdlog::memory_buf_t& out) override {
    nlohmann::ordered_json line;
    line["time"] =
        absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::FromChrono(message.time),
                         absl::UTCTimeZone());
    line["level"] = Text(spdlog::level::to_string_view(message.level));
    line["program"] = Text(message.logger_name);
    line["message"] = Text(message.payload);
    if (const CallIds* call = CurrentCall()) {
      line["request_id"] = call->request_id;
      if (call->trace.has_value()) {
        line["trace_id"] = call->trace->trace_id;
        line["span_id"] = call->trace->parent_id;
      }
    }
    if (current_fields != nullptr) {
      for (const auto& [key, text] : current_fields->texts()) {
        if (!text.empty()) line[key] = text;
      }
      for (const auto& [key, number] : current_fields->numbers()) {
        line[key] = number;
      }
    }
    const std::string text = line.dump(
        -1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    out.append(text.data(), text.data() + text.size());
    out.push_back('\n');
  }

  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<JsonFormatter>();
  }

 private:
  static std::string Text(spdlog::string_view_t view) {
    return std::string(view.data(), view.size());
  }
};

// " request_id=… trace_id=…" of the thread's call.
class CallFlag : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg&, const std::tm&,
              spdlog::memory_buf_t& out) override {
    const CallIds* call = CurrentCall();
    if (call == nullptr) return;
    std::string text = absl::StrCat(" request_id=", call->request_id);
    if (call->trace.has_value()) {
      absl::StrAppend(&text, " trace_id=", call->trace->trace_id);
    }
    out.append(text.data(), text.data() + text.size());
  }

  std::unique_ptr<spdlog::custom_flag_formatter> clone() const override {
    return std::make_unique<CallFlag>();
  }
};

std::unique_ptr<spdlog::formatter> MakeFormatter(absl::string_view format) {
  if (format == "json") return std::make_unique<JsonFormatter>();
  auto text = std::make_unique<spdlog::pattern_formatter>(
      spdlog::pattern_time_type::utc);
  text->add_flag<CallFlag>('*');
  text->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %-7l %n: %v%*");
  return text;
}

}  // namespace

absl::Status InitLogging(absl::string_view program, absl::string_view level,
                         absl::string_view format) {
  constexpr std::array<std::pair<const char*, spdlog::level::level_enum>, 6>
      kLevels = {{{"trace", spdlog::level::trace},
                  {"debug", spdlog::level::debug},
                  {"info", spdlog::level::info},
                  {"warning", spdlog::level::warn},
                  {"error", spdlog::level::err},
                  {"off", spdlog::level::off}}};
  if (format != "text" && format != "json") {
    return FieldError(
        "INVALID_ARGUMENT", "log-format",
        absl::StrCat("'", format, "' isn't a log format; use text or json"));
  }
  for (const auto& [name, value] : kLevels) {
    if (level != name) continue;
    auto problems = std::make_shared<ProblemSink>();
    problems->set_level(spdlog::level::warn);
    Problems() = problems;
    const auto sinks = {
        spdlog::sink_ptr(std::make_shared<spdlog::sinks::stderr_sink_mt>()),
        spdlog::sink_ptr(problems)};
    auto logger = std::make_shared<spdlog::logger>(std::string(program), sinks);
    logger->set_formatter(MakeFormatter(format));
    logger->set_level(value);
    logger->flush_on(spdlog::level::trace);
    spdlog::set_default_logger(std::move(logger));
    return absl::OkStatus();
  }
  return FieldError("INVALID_ARGUMENT", "log-level",
                    absl::StrCat("'", level,
                                 "' isn't a log level; use trace, debug, info, "
                                 "warning, error or off"));
}

std::vector<std::string> RecentProblems() {
  if (Problems() == nullptr) return {};
  return Problems()->Lines();
}

LogFields::LogFields(Texts texts, Numbers numbers)
    : texts_(std::move(texts)),
      numbers_(std::move(numbers)),
      outer_(current_fields) {
  current_fields = this;
}

LogFields::~LogFields() { current_fields = outer_; }

}  // namespace ratequant
