// headstart-lab: partitions, simulations and studies, without a network.

#include "experiments/lab/commands.hpp"
#include "shared/base/cli.hpp"
#include "shared/base/error.hpp"

int main(int argc, char** argv) {
  using namespace headstart;
  CLI::App app("Headstart lab: what runs without a network.");
  app.footer("headstart-lab SUBCOMMAND --help shows the options and settings of a subcommand.\n\n" + exit_code_help());
  app.require_subcommand(1);
  const std::vector<lab::Command> commands = {lab::add_partition(app), lab::add_export(app), lab::add_simulate(app),
                                              lab::add_central(app),   lab::add_pairs(app),  lab::add_peers(app),
                                              lab::add_repeat(app),    lab::add_merge(app),  lab::add_table(app),
                                              lab::add_advise(app),    lab::add_page(app),   lab::add_words(app)};
  return run_program("headstart-lab", app, argc, argv, [&] {
    for (const lab::Command& command : commands) {
      if (command.app->parsed()) return command.run();
    }
    throw Error(Errc::usage, "name a subcommand; --help lists them");
  });
}
