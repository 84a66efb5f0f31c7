// The command line of the three programs: CLI11 over the declared settings, and errors turned into exit codes.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "shared/base/fields.hpp"

namespace headstart {

/// Adds --config FILE and --set key=value to `app`, and has its --help show the settings: those with the keys `first`,
/// which a first run needs, and the groups; --help GROUP shows one group, --help all every setting.
/// The settings are loaded when the command line is parsed: the file first, then each --set in order. Where two give
/// one setting different values the last one counts, and standard error says so.
void add_settings(CLI::App& app, Fields& fields, std::vector<std::string> first = {});

/// What is wrong with a path on the command line: it is empty, or require_path() refuses it. Empty where nothing is.
std::string path_fault(const std::string& path);

/// Adds an option that is a path, or a list of them. What path_fault() finds fault with is refused.
template <class Target>
CLI::Option* add_path(CLI::App& app, std::string name, Target& target, std::string sentence) {
  return app.add_option(std::move(name), target, std::move(sentence))->check(path_fault)->type_name("PATH");
}

/// Runs `body`; prints what an Error or exception says as one sentence on standard error ("NAME: ...") and
/// returns the documented exit code. Handles CLI11's own exits (--help, usage). Neither a standard stream that is
/// closed nor a pipe that nobody reads any more ends the program.
int run_program(std::string_view name, CLI::App& app, int argc, char** argv, const std::function<int()>& body);

}  // namespace headstart
