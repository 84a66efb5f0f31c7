// Seconds that keeping a round costs: the checkpoint, flushed to disk, and the round's events in the journal, as the
// federation writes them between two rounds. One line a round, the first warms up.
//   journal_bench FOLDER MODEL ROUNDS
#include <chrono>
#include <cstdlib>
#include <iostream>

#include <fmt/format.h>

#include "server/record/recovery.hpp"
#include "server/record/run_folder.hpp"
#include "shared/learn/models/model.hpp"

int main(int argc, char** argv) {
  using namespace headstart;
  if (argc != 4) return std::cerr << "usage: journal_bench FOLDER MODEL ROUNDS\n", 2;
  learn::ModelSpec spec;
  spec.name = argv[2];
  const learn::Task task = spec.name == "cnn" ? learn::Task{{1, 28, 28}, 10} : learn::Task{{3, 32, 32}, 10};
  server::Milestone milestone;
  milestone.state = wire::PackedState(learn::make_model(spec, task, Seed(1))->state());
  milestone.digest = milestone.state.digest();
  for (int i = 0; i < 10; ++i) milestone.participation.accepted.push_back(fmt::format("silo-{}", i));
  server::RunFolder folder(argv[1], {}, std::chrono::system_clock::now);
  for (milestone.round = 0; milestone.round <= std::atoi(argv[3]); ++milestone.round) {
    server::RoundRecord record;
    record.round = milestone.round;
    record.model_digest = milestone.digest;
    record.participation = milestone.participation;
    record.central = server::Measurement{0.5, 1, std::vector<double>(10, 0.5), 1000};
    const auto begin = std::chrono::steady_clock::now();
    folder.checkpoint(milestone.round, milestone.state, {});
    folder.write_down(milestone);
    folder.prune_checkpoints();
    folder.write_down(record);
    folder.append_round(record);
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin;
    if (milestone.round > 0) std::cout << passed.count() << '\n';
  }
  return 0;
}
