#include "services/common/logging.h"

#include <array>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace ratequant {

absl::Status InitLogging(absl::string_view program, absl::string_view level) {
  constexpr std::array<std::pair<const char*, spdlog::level::level_enum>, 6>
      kLevels = {{{"trace", spdlog::level::trace},
                  {"debug", spdlog::level::debug},
                  {"info", spdlog::level::info},
                  {"warning", spdlog::level::warn},
                  {"error", spdlog::level::err},
                  {"off", spdlog::level::off}}};
  for (const auto& [name, value] : kLevels) {
    if (level != name) continue;
    auto logger = std::make_shared<spdlog::logger>(
        std::string(program),
        std::make_shared<spdlog::sinks::stderr_sink_mt>());
    logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %-7l %n: %v",
                        spdlog::pattern_time_type::utc);
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

}  // namespace ratequant
