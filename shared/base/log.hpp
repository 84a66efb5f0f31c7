// Logging: one spdlog logger to standard error.
#pragma once

#include <string>

#include <spdlog/spdlog.h>

namespace headstart {

/// Sets up the process's logger. `level`: trace, debug, info, warn, error, off. Throws Error(usage) for another word.
void set_up_log(const std::string& program, const std::string& level);

}  // namespace headstart
