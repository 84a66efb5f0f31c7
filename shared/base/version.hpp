#pragma once

#include <string_view>

namespace headstart {

/// The project's version, "major.minor.patch".
std::string_view version();

}  // namespace headstart
