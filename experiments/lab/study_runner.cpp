#include "experiments/lab/study_runner.hpp"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/base/version.hpp"
#include "shared/learn/core/platform.hpp"

namespace headstart::lab {

namespace {

/// Threads that claim cells and compute them until all cells of the store are done.
class CellRunners {
 public:
  CellRunners(StudyStore& store, const ComputeCell& compute, StudyObserver& observer, std::stop_token stop)
      : store_(store), compute_(compute), observer_(observer), asked_to_stop_(std::move(stop)) {}

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
        const CellResult result = compute_(*cell, halt_.get_token());
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
  const ComputeCell& compute_;
  StudyObserver& observer_;
  std::stop_token asked_to_stop_;
  std::stop_source halt_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::exception_ptr failure_;
};

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

void run_cells(StudyStore& store, const ComputeCell& compute, std::size_t num_jobs, StudyObserver& observer,
               std::stop_token stop) {
  CellRunners(store, compute, observer, std::move(stop)).run(num_jobs);
}

CellResult measured(const Clock& clock, const std::function<nlohmann::json()>& measure) {
  const TimePoint begun = clock();
  CellResult result;
  result.metrics = measure();
  result.seconds = seconds_between(begun, clock());
  result.version = fmt::format("headstart {}, {}", version(), learn::platform_line());
  return result;
}

}  // namespace headstart::lab
