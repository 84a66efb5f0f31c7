#include "shared/base/cli.hpp"

#include <filesystem>
#include <iostream>
#include <map>

#include <fmt/format.h>

#include "shared/base/descriptors.hpp"
#include "shared/base/error.hpp"
#include "shared/base/help.hpp"
#include "shared/base/printable.hpp"
#include "shared/base/signals.hpp"
#include "shared/base/version.hpp"

namespace headstart {

std::string path_fault(const std::string& path) {
  if (path.empty()) return "expected a path, got an empty text";
  try {
    require_path(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

namespace {

void set_in_order(Fields& fields, const std::vector<std::string>& assignments) {
  std::map<std::string, std::string> given;
  for (const std::string& assignment : assignments) {
    fields.set(assignment);
    const std::string key = assignment.substr(0, assignment.find('='));
    const auto [earlier, is_first] = given.try_emplace(key, assignment);
    if (is_first || earlier->second == assignment) continue;
    std::cerr << fmt::format("note: --set {} takes the place of --set {}\n", assignment, earlier->second);
    earlier->second = assignment;
  }
}

/// All of `app`. The program itself knows the whole name of a subcommand.
std::string complete_help(const CLI::App& app) {
  const CLI::App* program = &app;
  while (program->get_parent() != nullptr) program = program->get_parent();
  return program->help();
}

}  // namespace

void add_settings(CLI::App& app, Fields& fields, std::vector<std::string> first) {
  app.set_help_flag();  // ours may have a value
  const auto help = [&app, &fields, first = std::move(first)](const std::string& name) {
    if (name.empty()) {
      std::cout << short_help(app, fields, first);
    } else {
      std::cout << (name == "all" ? complete_help(app) : group_help(fields, name));
    }
    throw CLI::Success();
  };
  app.add_option_function<std::string>("-h,--help", help, "Print this help; GROUP: its settings; all: every setting")
      ->expected(0, 1)
      ->type_name("[GROUP]")
      ->trigger_on_parse();
  app.failure_message([](const CLI::App*, const CLI::Error& error) {
    return fmt::format("{}\nRun with --help for more information.\n", error.what());
  });
  app.add_option_function<std::string>(
         "--config", [&fields](const std::string& file) { fields.load_file(file); }, "JSON file with settings")
      ->check(path_fault)
      ->type_name("FILE")
      ->trigger_on_parse();
  app.add_option_function<std::vector<std::string>>(
         "--set", [&fields](const std::vector<std::string>& assignments) { set_in_order(fields, assignments); },
         "One setting over the file's; may be given many times; of two for one setting the last counts")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  app.footer([&fields] {
    return "Settings (dots open objects in the file: \"train\": {\"lr\": 0.01}):\n" + fields.help() + "\n" +
           exit_code_help();
  });
}

int run_program(std::string_view name, CLI::App& app, int argc, char** argv, const std::function<int()>& body) {
  provide_standard_streams();
  outlive_broken_pipes();
  app.set_version_flag("--version", std::string(version()));
  try {
    app.parse(argc, argv);
    return body();
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(Errc::usage);
  } catch (const Error& error) {
    std::cerr << fmt::format("{}: {}\n", name, printable(error.what()));
    return error.exit_code();
  } catch (const std::filesystem::filesystem_error& error) {
    std::cerr << fmt::format("{}: {}: {}\n", name, printable(error.path1().string()), error.code().message());
    return static_cast<int>(Errc::storage);
  } catch (const std::bad_alloc&) {
    std::cerr << fmt::format("{}: out of memory\n", name);
    return static_cast<int>(Errc::run_failed);
  } catch (const std::exception& error) {
    std::cerr << fmt::format("{}: internal error: {}\n", name, printable(error.what()));
    return static_cast<int>(Errc::internal);
  }
}

}  // namespace headstart
