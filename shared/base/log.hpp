// Logging: one spdlog logger to standard error.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include <spdlog/spdlog.h>

namespace headstart {

enum class LogFormat {
  text,  ///< Date and time (UTC), level, message.
  json,  ///< An object a line: date and time (UTC), level, program, message.
};
inline constexpr std::pair<LogFormat, std::string_view> log_format_words[] = {{LogFormat::text, "text"},
                                                                              {LogFormat::json, "json"}};

/// Sets up the process's logger; each message is made printable() first. `level`: trace, debug, info, warn, error, off.
/// Throws Error(usage) for another word. Lines that cannot be written, as where nobody reads standard error any more,
/// are dropped.
void set_up_log(const std::string& program, const std::string& level, LogFormat format = LogFormat::text);

}  // namespace headstart
