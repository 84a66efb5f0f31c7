#include "shared/base/cli.hpp"

#include <iostream>

#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/base/version.hpp"

namespace headstart {

void add_settings(CLI::App& app, Fields& fields) {
  app.add_option_function<std::string>(
         "--config", [&fields](const std::string& file) { fields.load_file(file); }, "JSON file with settings")
      ->type_name("FILE")
      ->trigger_on_parse();
  app.add_option_function<std::vector<std::string>>(
         "--set",
         [&fields](const std::vector<std::string>& assignments) {
           for (const std::string& assignment : assignments) fields.set(assignment);
         },
         "One setting over the file's; may be given many times")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  app.footer([&fields] {
    return "Settings (dots open objects in the file: \"train\": {\"lr\": 0.01}):\n" + fields.help() + "\n" +
           exit_code_help();
  });
}

int run_program(std::string_view name, CLI::App& app, int argc, char** argv, const std::function<int()>& body) {
  app.set_version_flag("--version", std::string(version()));
  try {
    app.parse(argc, argv);
    return body();
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(Errc::usage);
  } catch (const Error& error) {
    std::cerr << fmt::format("{}: {}\n", name, error.what());
    return error.exit_code();
  } catch (const std::bad_alloc&) {
    std::cerr << fmt::format("{}: out of memory\n", name);
    return static_cast<int>(Errc::run_failed);
  } catch (const std::exception& error) {
    std::cerr << fmt::format("{}: internal error: {}\n", name, error.what());
    return static_cast<int>(Errc::internal);
  }
}

}  // namespace headstart
