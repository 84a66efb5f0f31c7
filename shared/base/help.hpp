// What --help prints: on two screens what a first run needs, by group the rest.
#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "shared/base/fields.hpp"

namespace headstart {

/// Usage and options of `app`, the settings with the keys `first`, a table of the groups, a line each, and the exit
/// codes, in lines of at most 100 columns. Where all settings are of one group, it has them in full in place of the
/// first ones and the table. Throws Error(internal) where a key of `first` is unknown.
std::string short_help(const CLI::App& app, const Fields& fields, const std::vector<std::string>& first);

/// The settings of a group, or those below a key ("consolidation.grid"). Throws Error(usage) where there is none: it
/// names the group or key that comes nearest, and all groups.
std::string group_help(const Fields& fields, const std::string& name);

}  // namespace headstart
