#include <memory>

#include "experiments/lab/commands.hpp"
#include "experiments/lab/peer_study.hpp"
#include "experiments/lab/study_command.hpp"
#include "shared/base/cli.hpp"

namespace headstart::lab {

namespace {

struct PeersCommand {
  PeerStudy study;
  Fields fields;
  StudyOptions options;
};

}  // namespace

Command add_peers(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("peers", "Peers that learn from each other without a server, over a graph");
  const auto command = std::make_shared<PeersCommand>();
  command->study.settings.model.second_head = true;
  declare_fields(command->fields, command->study);
  add_settings(*sub, command->fields,
               {"data.set", "data.path", "partition.clients", "study.partitions", "study.seeds", "study.graphs",
                "study.methods", "study.measures", "study.alphas", "peers.rounds"});
  add_study_options(*sub, command->options, "the cells");
  return {sub, [command] { return run_study(command->options, command->study, run_peer_study, peer_summary); }};
}

}  // namespace headstart::lab
