#include <iostream>

#include "experiments/lab/advisor.hpp"
#include "experiments/lab/commands.hpp"
#include "shared/base/cli.hpp"

namespace headstart::lab {

namespace {

struct AdviseCommand {
  Situation situation;
  Fields fields;
  std::string study;
};

int give_advice(const AdviseCommand& command) {
  if (command.study.empty()) {
    std::cout << text_of(advise(command.situation));
    return 0;
  }
  std::vector<DoneCell> cells;
  StudyStore(command.study).for_each_done([&cells](const DoneCell& done) { cells.push_back(done); });
  std::cout << text_of(advise(command.situation, cells));
  return 0;
}

}  // namespace

Command add_advise(CLI::App& app) {
  CLI::App* sub =
      app.add_subcommand("advise", "Says which method, transfer set, T and alpha suit what you have, and why");
  const auto command = std::make_shared<AdviseCommand>();
  declare_fields(command->fields, command->situation);
  add_settings(*sub, command->fields);
  add_path(*sub, "--study", command->study,
           "Database of a pair study that the advice rests on (default: the published findings)");
  return {sub, [command] { return give_advice(*command); }};
}

}  // namespace headstart::lab
