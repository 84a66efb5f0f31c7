// The subcommands of headstart-lab: what runs without a network.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include <CLI/CLI.hpp>

namespace headstart::lab {

/// One subcommand: owns its settings; `run` is called after the command line is parsed.
struct Command {
  CLI::App* app = nullptr;
  std::function<int()> run;
};

Command add_partition(CLI::App& app);
Command add_export(CLI::App& app);
Command add_simulate(CLI::App& app);
Command add_central(CLI::App& app);
Command add_pairs(CLI::App& app);
Command add_peers(CLI::App& app);
Command add_repeat(CLI::App& app);
Command add_merge(CLI::App& app);
Command add_table(CLI::App& app);
Command add_advise(CLI::App& app);
Command add_page(CLI::App& app);
Command add_words(CLI::App& app);

}  // namespace headstart::lab
