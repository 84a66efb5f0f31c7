#include <iostream>
#include <memory>

#include <fmt/format.h>

#include "experiments/lab/commands.hpp"
#include "server/operations/page_data.hpp"
#include "server/operations/page_files.hpp"
#include "shared/base/cli.hpp"
#include "shared/base/files.hpp"

namespace headstart::lab {

namespace {

struct PageSettings {
  std::string run;
  std::string out;
  std::string reference;
};

int write_page(const PageSettings& settings) {
  const std::filesystem::path folder = settings.run;
  const std::filesystem::path out = settings.out.empty() ? folder / "page.html" : std::filesystem::path(settings.out);
  nlohmann::json run = server::recorded_run(folder);
  if (!settings.reference.empty()) run["reference"] = server::reference_run(settings.reference);
  run["has_files"] = settings.out.empty();  // the page names its neighbours
  write_text_atomically(out, server::page_document(run));
  std::cout << fmt::format("page: {}\n", out.string());
  return 0;
}

}  // namespace

Command add_page(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("page", "Writes the page of a run's folder as one HTML file that needs no server");
  const auto settings = std::make_shared<PageSettings>();
  add_path(*command, "run", settings->run, "The folder of the run")->required();
  add_path(*command, "--out", settings->out, "The file to write; page.html in the run's folder without it");
  add_path(*command, "--reference", settings->reference,
           "Another run's folder, or its rounds.jsonl, that saved rounds are counted against");
  return {command, [settings] { return write_page(*settings); }};
}

}  // namespace headstart::lab
