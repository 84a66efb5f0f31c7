#include "experiments/lab/pair_study.hpp"

#include <condition_variable>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "experiments/lab/pair_cell.hpp"
#include "shared/base/error.hpp"
#include "shared/base/version.hpp"
#include "shared/learn/core/platform.hpp"

namespace headstart::lab {

namespace {

/// The participants of the partitions and seeds under way: cells come in their order, so the last few suffice.
class ParticipantsCache {
 public:
  ParticipantsCache(const StudyData& data, std::filesystem::path models, Clock clock)
      : data_(data), models_(std::move(models)), clock_(std::move(clock)) {}

  std::shared_ptr<Participants> of(const PairCell& cell) {
    const std::scoped_lock lock(mutex_);
    const std::string key = fmt::format("{}/{}", cell.settings.partition.kind, cell.seed);
    for (const auto& [kept, participants] : kept_) {
      if (kept == key) return participants;
    }
    constexpr std::size_t num_kept = 2;
    if (kept_.size() == num_kept) kept_.erase(kept_.begin());
    kept_.emplace_back(key, std::make_shared<Participants>(cell.settings, data_, cell.seed, models_, clock_));
    return kept_.back().second;
  }

 private:
  const StudyData& data_;
  std::filesystem::path models_;
  Clock clock_;
  std::mutex mutex_;
  std::vector<std::pair<std::string, std::shared_ptr<Participants>>> kept_;
};

CellResult compute(Participants& participants, const PairCell& cell, const Clock& clock, const std::stop_token& stop) {
  const TimePoint begun = clock();
  CellResult result;
  result.metrics = cell.is_pair ? distil_pair(participants, cell, stop) : measure_participant(participants, cell, stop);
  result.seconds = seconds_between(begun, clock());
  result.version = fmt::format("headstart {}, {}", version(), learn::platform_line());
  return result;
}

/// Threads that claim cells and compute them until all cells of the store are done.
class CellRunners {
 public:
  CellRunners(StudyStore& store, ParticipantsCache& cache, StudyObserver& observer, const Clock& clock,
              std::stop_token stop)
      : store_(store), cache_(cache), observer_(observer), clock_(clock), asked_to_stop_(std::move(stop)) {}

  void run(std::size_t num_jobs) {
    const std::stop_callback on_stop(asked_to_stop_, [this] { halt_.request_stop(); });
    {
      std::vector<std::jthread> threads;
      for (std::size_t i = 0; i < num_jobs; ++i) threads.emplace_back([this] { work(); });
    }
    if (failure_) std::rethrow_exception(failure_);
    if (asked_to_stop_.stop_requested())
      throw Error(Errc::interrupted, "the study was stopped; the same command goes on with it");
  }

 private:
  void work() {
    while (const std::optional<Cell> cell = next()) {
      try {
        const PairCell pair = pair_cell_of(*cell);
        const CellResult result = compute(*cache_.of(pair), pair, clock_, halt_.get_token());
        const std::scoped_lock lock(mutex_);
        store_.finish(*cell, result);
        observer_.on_cell({*cell, result}, store_.counts());
      } catch (const std::exception& error) {
        give_up(*cell, error);
      }
    }
  }

  /// A cell to compute; none when all are done, or when this process is to stop. Waits while others' are under way, as
  /// one of those processes may end.
  std::optional<Cell> next() {
    constexpr auto pause = std::chrono::milliseconds(200);
    std::unique_lock lock(mutex_);
    while (!halt_.stop_requested()) {
      try {
        if (auto cell = store_.claim()) return cell;
        const CellCounts counts = store_.counts();
        if (counts.done == counts.total) break;
      } catch (...) {
        fail(std::current_exception());
        break;
      }
      changed_.wait_for(lock, halt_.get_token(), pause, [] { return false; });
    }
    return std::nullopt;
  }

  void give_up(const Cell& cell, const std::exception& error) {
    const std::scoped_lock lock(mutex_);
    const auto* known = dynamic_cast<const Error*>(&error);
    const Errc code = known != nullptr ? known->code() : Errc::internal;
    if (code != Errc::interrupted) {
      fail(std::make_exception_ptr(Error(code, fmt::format("cell {}: {}", cell.key, error.what()))));
    }
    try {
      store_.give_back(cell);
    } catch (...) {
      fail(std::current_exception());
    }
  }

  /// The first failure is told, and ends all.
  void fail(std::exception_ptr failure) {
    if (!failure_) failure_ = std::move(failure);
    halt_.request_stop();
  }

  StudyStore& store_;
  ParticipantsCache& cache_;
  StudyObserver& observer_;
  const Clock& clock_;
  std::stop_token asked_to_stop_;
  std::stop_source halt_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::exception_ptr failure_;
};

/// Of a study's description, under "data".
constexpr std::pair<const char*, learn::Dataset StudyData::*> digests[] = {{"train_digest", &StudyData::train},
                                                                           {"test_digest", &StudyData::test}};

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
        if (number++ % share.count == share.index) owned.push_back(std::move(cell));
      }
    }
  }
  return owned;
}

}  // namespace

Share share_of(const std::string& text) {
  Share share;
  std::size_t index_end = 0;
  std::size_t count_end = 0;
  try {
    share.index = std::stoll(text, &index_end);
    if (index_end < text.size()) share.count = std::stoll(text.substr(index_end + 1), &count_end);
  } catch (const std::exception&) {
    index_end = 0;
  }
  const bool is_whole =
      index_end > 0 && index_end < text.size() && text[index_end] == '/' && index_end + 1 + count_end == text.size();
  if (!is_whole || share.index < 0 || share.index >= share.count) {
    throw Error(Errc::usage, fmt::format("share '{}': expected INDEX/COUNT with 0 <= INDEX < COUNT, as in 0/4", text));
  }
  return share;
}

nlohmann::json description_of(const PairStudy& study, const StudyData& data) {
  PairStudy copy = study;
  Fields fields;
  declare_fields(fields, copy);
  nlohmann::json description = fields.resolved();
  for (const auto& [key, split] : digests) description["data"][key] = (data.*split).digest();
  return description;
}

void require_data_of(const nlohmann::json& description, const StudyData& data, const std::string& file) {
  for (const auto& [key, split] : digests) {
    const std::string was = description.at("data").value(key, "");
    const std::string is = (data.*split).digest();
    // A study that an earlier version began names none.
    if (!was.empty() && was != is) {
      throw Error(Errc::data, fmt::format("{}: the study is of other data (data.{} was '{}', is '{}'); name the folder "
                                          "of those it was begun with",
                                          file, key, was, is));
    }
  }
}

void run_pair_study(const PairStudy& study, const StudyData& data, StudyStore& store, const StudyRunOptions& options,
                    StudyObserver& observer, const Clock& clock, std::stop_token stop) {
  check(study);
  learn::use_threads(study.settings.threads);
  ParticipantsCache cache(data, options.models, clock);
  CellRunners runners(store, cache, observer, clock, std::move(stop));
  // Where the study is gone on with, its pairs are there already.
  store.add(participant_cells(study));
  runners.run(options.num_jobs);
  store.add(owned_pairs(study, store, options.share));
  runners.run(options.num_jobs);
}

CellResult compute_cell(const Cell& cell, const StudyData& data, const std::filesystem::path& models,
                        const Clock& clock, std::stop_token stop) {
  const PairCell pair = pair_cell_of(cell);
  learn::use_threads(pair.settings.threads);
  Participants participants(pair.settings, data, pair.seed, models, clock);
  return compute(participants, pair, clock, stop);
}

}  // namespace headstart::lab
