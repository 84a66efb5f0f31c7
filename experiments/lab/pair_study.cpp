#include "experiments/lab/pair_study.hpp"

#include <map>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "experiments/lab/pair_cell.hpp"
#include "shared/base/error.hpp"
#include "shared/learn/core/platform.hpp"

namespace headstart::lab {

namespace {

CellResult compute(Participants& participants, const PairCell& cell, const Clock& clock, const std::stop_token& stop) {
  return measured(clock, [&] {
    return cell.is_pair ? distil_pair(participants, cell, stop) : measure_participant(participants, cell, stop);
  });
}

/// What pairs are drawn by, out of the participants' cells.
std::map<std::string, double> validation_accuracies(const StudyStore& store) {
  std::map<std::string, double> accuracies;
  store.for_each_done([&accuracies](const DoneCell& done) {
    if (done.cell.settings.at("pair").contains("teacher")) return;
    accuracies[done.cell.key] = done.result.metrics.at("validation").at("accuracy").get<double>();
  });
  return accuracies;
}

std::vector<Cell> owned_pairs(const PairStudy& study, const StudyStore& store, const Share& share) {
  const std::map<std::string, double> accuracies = validation_accuracies(store);
  std::vector<Cell> owned;
  for (const std::string& partition : study.plan.partitions) {
    for (const std::int64_t seed : study.plan.seeds) {
      std::vector<Strength> strengths;
      for (std::int64_t i = 0; i < study.settings.partition.num_clients; ++i) {
        PairCell cell{.settings = study.settings, .seed = seed, .is_pair = false, .student = i};
        cell.settings.partition.kind = partition;
        strengths.push_back({accuracies.at(to_cell(cell).key)});
      }
      std::int64_t number = 0;
      for (Cell& cell : pair_cells(study, partition, seed, strengths)) {
        if (share.owns(number++)) owned.push_back(std::move(cell));
      }
    }
  }
  return owned;
}

}  // namespace

nlohmann::json description_of(const PairStudy& study, const StudyData& data) {
  PairStudy copy = study;
  Fields fields;
  declare_fields(fields, copy);
  return with_digests(fields.resolved(), data);
}

void run_pair_study(const PairStudy& study, const StudyData& data, StudyStore& store, const StudyRunOptions& options,
                    StudyObserver& observer, const Clock& clock, std::stop_token stop) {
  check(study);
  learn::use_threads(study.settings.threads);
  ParticipantsCache cache(data, options.models, clock);
  const ComputeCell compute_one = [&](const Cell& cell, const std::stop_token& halt) {
    const PairCell pair = pair_cell_of(cell);
    return compute(*cache.of(pair.settings, pair.seed), pair, clock, halt);
  };
  // Where the study is gone on with, its pairs are there already.
  store.add(participant_cells(study));
  run_cells(store, compute_one, options.num_jobs, observer, stop);
  store.add(owned_pairs(study, store, options.share));
  run_cells(store, compute_one, options.num_jobs, observer, stop);
}

CellResult compute_pair_cell(const Cell& cell, const StudyData& data, const std::filesystem::path& models,
                             const Clock& clock, std::stop_token stop) {
  const PairCell pair = pair_cell_of(cell);
  learn::use_threads(pair.settings.threads);
  Participants participants(pair.settings, data, pair.seed, models, clock);
  return compute(participants, pair, clock, stop);
}

std::string pair_summary(const StudyStore& store) {
  struct Sum {
    std::int64_t count = 0, positive = 0;
    double gain = 0, learning = 0, forgetting = 0, seconds = 0;
  };
  std::map<std::string, Sum> sums;
  store.for_each_done([&sums](const DoneCell& done) {
    const nlohmann::json& pair = done.cell.settings.at("pair");
    if (!pair.contains("teacher")) return;
    const nlohmann::json& metrics = done.result.metrics;
    Sum& sum = sums[fmt::format("{:16} {:15} {:18}", done.cell.settings.at("partition").at("kind").get<std::string>(),
                                pair.at("transfer").get<std::string>(), pair.at("method").get<std::string>())];
    ++sum.count;
    sum.positive += metrics.at("gain").get<double>() > 0 ? 1 : 0;
    sum.gain += metrics.at("gain").get<double>();
    sum.learning += metrics.at("learning").get<double>();
    sum.forgetting += metrics.at("forgetting").get<double>();
    sum.seconds += done.result.seconds;
  });
  std::string text =
      fmt::format("{:16} {:15} {:18} {:>6} {:>7} {:>9} {:>10} {:>9} {:>9}\n", "partition", "transfer set", "method",
                  "pairs", "gain", "learning", "forgetting", "positive", "s a pair");
  for (const auto& [name, sum] : sums) {
    const auto mean = [&sum](double total) { return total / static_cast<double>(sum.count); };
    text += fmt::format("{} {:6} {:+7.2f} {:9.2f} {:10.2f} {:8.0f}% {:9.2f}\n", name, sum.count, 100 * mean(sum.gain),
                        100 * mean(sum.learning), 100 * mean(sum.forgetting),
                        100 * mean(static_cast<double>(sum.positive)), mean(sum.seconds));
  }
  return text;
}

}  // namespace headstart::lab
