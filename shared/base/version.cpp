#include "shared/base/version.hpp"

namespace headstart {

std::string_view version() { return HEADSTART_VERSION; }

}  // namespace headstart
