// The command line of the three programs: CLI11 over the declared settings, and errors turned into exit codes.
#pragma once

#include <functional>

#include <CLI/CLI.hpp>

#include "shared/base/fields.hpp"

namespace headstart {

/// Adds --config FILE and --set key=value to `app`, and the settings' help to its --help.
/// The settings are loaded when the command line is parsed: the file first, then each --set in order.
void add_settings(CLI::App& app, Fields& fields);

/// Runs `body`; prints what an Error or exception says as one sentence on standard error ("NAME: ...") and
/// returns the documented exit code. Handles CLI11's own exits (--help, usage).
int run_program(std::string_view name, CLI::App& app, int argc, char** argv, const std::function<int()>& body);

}  // namespace headstart
