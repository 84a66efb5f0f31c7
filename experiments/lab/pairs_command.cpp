#include <memory>

#include "experiments/lab/commands.hpp"
#include "experiments/lab/pair_study.hpp"
#include "experiments/lab/study_command.hpp"
#include "experiments/lab/study_view.hpp"
#include "shared/base/cli.hpp"

namespace headstart::lab {

namespace {

struct PairsCommand {
  PairStudy study;
  Fields fields;
  StudyOptions options;
};

int run_pairs(const PairsCommand& command) {
  const PairStudy& study = command.study;
  check(study);
  return run_study(command.options,
                   {.source = study.settings.data,
                    .describe = [&study](const StudyData& data) { return description_of(study, data); },
                    .run =
                        [&study](const StudyData& data, StudyStore& store, const StudyRunOptions& options,
                                 StudyObserver& observer, std::stop_token stop) {
                          run_pair_study(study, data, store, options, observer, std::chrono::steady_clock::now,
                                         std::move(stop));
                        },
                    .summarise = pair_summary});
}

}  // namespace

Command add_pairs(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("pairs", "Distils between all pairs of pre-trained models, by several methods");
  const auto command = std::make_shared<PairsCommand>();
  declare_fields(command->fields, command->study);
  add_settings(*sub, command->fields,
               {"data.set", "data.path", "partition.clients", "study.partitions", "study.seeds", "study.methods",
                "study.transfers", "model.name"});
  add_study_options(*sub, command->options, "the pairs");
  return {sub, [command] { return run_pairs(*command); }};
}

}  // namespace headstart::lab
