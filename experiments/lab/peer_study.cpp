#include "experiments/lab/peer_study.hpp"

#include <map>
#include <utility>

#include <fmt/format.h>

#include "experiments/lab/peer_cell.hpp"
#include "shared/learn/core/platform.hpp"

namespace headstart::lab {

namespace {

CellResult compute(Participants& participants, const PeerCell& cell, const Clock& clock, const std::stop_token& stop) {
  return measured(clock, [&] { return measure_peers(participants, cell, stop); });
}

}  // namespace

nlohmann::json description_of(const PeerStudy& study, const StudyData& data) {
  PeerStudy copy = study;
  Fields fields;
  declare_fields(fields, copy);
  return with_digests(fields.resolved(), data);
}

void run_peer_study(const PeerStudy& study, const StudyData& data, StudyStore& store, const StudyRunOptions& options,
                    StudyObserver& observer, const Clock& clock, std::stop_token stop) {
  check(study);
  learn::use_threads(study.settings.threads);
  ParticipantsCache cache(data, options.models, clock);
  std::vector<Cell> owned;
  std::int64_t number = 0;
  for (const PeerCell& cell : peer_cells(study)) {
    if (options.share.owns(number++)) owned.push_back(to_cell(cell));
  }
  store.add(owned);
  const ComputeCell compute_one = [&](const Cell& cell, const std::stop_token& halt) {
    const PeerCell peer = peer_cell_of(cell);
    return compute(*cache.of(peer.settings, peer.seed), peer, clock, halt);
  };
  run_cells(store, compute_one, options.num_jobs, observer, std::move(stop));
}

CellResult compute_peer_cell(const Cell& cell, const StudyData& data, const std::filesystem::path& models,
                             const Clock& clock, std::stop_token stop) {
  const PeerCell peer = peer_cell_of(cell);
  learn::use_threads(peer.settings.threads);
  Participants participants(peer.settings, data, peer.seed, models, clock);
  return compute(participants, peer, clock, stop);
}

std::string peer_summary(const StudyStore& store) {
  struct Sum {
    std::int64_t count = 0;
    double before_global = 0, before_own = 0, global = 0, own = 0, spread = 0, bytes = 0, seconds = 0;
  };
  std::map<std::string, Sum> sums;
  std::size_t longest = 6;
  store.for_each_done([&](const DoneCell& done) {
    // The key without the seed.
    std::string name = done.cell.key;
    const std::size_t seed = name.find("/seed-");
    name.erase(seed, name.find('/', seed + 1) - seed);
    longest = std::max(longest, name.size());
    const nlohmann::json& metrics = done.result.metrics;
    Sum& sum = sums[name];
    ++sum.count;
    sum.before_global += metrics.at("before").at("global").get<double>();
    sum.before_own += metrics.at("before").at("own").get<double>();
    sum.global += metrics.at("after").at("global").get<double>();
    sum.own += metrics.at("after").at("own").get<double>();
    sum.spread += metrics.at("after").at("spread").get<double>();
    sum.bytes += metrics.at("bytes").get<double>();
    sum.seconds += done.result.seconds;
  });
  std::string text = fmt::format("{:<{}} {:>5} {:>15} {:>15} {:>7} {:>9} {:>8}\n", "cell", longest, "seeds", "global",
                                 "own", "spread", "MB sent", "s a cell");
  for (const auto& [name, sum] : sums) {
    const auto mean = [&sum](double total) { return total / static_cast<double>(sum.count); };
    text += fmt::format("{:<{}} {:5} {:6.2f} -> {:5.2f} {:6.2f} -> {:5.2f} {:7.2f} {:9.3f} {:8.2f}\n", name, longest,
                        sum.count, 100 * mean(sum.before_global), 100 * mean(sum.global), 100 * mean(sum.before_own),
                        100 * mean(sum.own), 100 * mean(sum.spread), mean(sum.bytes) / 1e6, mean(sum.seconds));
  }
  return text;
}

}  // namespace headstart::lab
