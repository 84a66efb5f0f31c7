#include <memory>

#include "experiments/lab/commands.hpp"
#include "experiments/lab/pair_study.hpp"
#include "experiments/lab/study_command.hpp"
#include "shared/base/cli.hpp"

namespace headstart::lab {

namespace {

struct PairsCommand {
  PairStudy study;
  Fields fields;
  StudyOptions options;
};

}  // namespace

Command add_pairs(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("pairs", "Distils between all pairs of pre-trained models, by several methods");
  const auto command = std::make_shared<PairsCommand>();
  declare_fields(command->fields, command->study);
  add_settings(*sub, command->fields,
               {"data.set", "data.path", "partition.clients", "study.partitions", "study.seeds", "study.methods",
                "study.transfers", "model.name"});
  add_study_options(*sub, command->options, "the pairs");
  return {sub, [command] { return run_study(command->options, command->study, run_pair_study, pair_summary); }};
}

}  // namespace headstart::lab
