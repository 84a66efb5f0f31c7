#include "shared/base/log.hpp"

#include <spdlog/sinks/stdout_color_sinks.h>

#include "shared/base/error.hpp"

namespace headstart {

void set_up_log(const std::string& program, const std::string& level) {
  const spdlog::level::level_enum parsed = spdlog::level::from_str(level);
  if (parsed == spdlog::level::off && level != "off") {
    throw Error(Errc::usage, "log level: expected trace, debug, info, warn, error or off, got '" + level + "'");
  }
  auto logger = spdlog::stderr_color_mt(program);
  logger->set_level(parsed);
  logger->set_pattern("%H:%M:%S.%e %^%-5l%$ %v");
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace headstart
