#include "server/phases/start_choice.hpp"

#include <map>

#include <fmt/format.h>

#include "server/phases/consolidate.hpp"
#include "server/phases/head_from_sums.hpp"

namespace headstart::server {

namespace {

net::Task<Start> start_from(const RunContext& context, const LocalModels& models, const Recovery& earlier,
                            StartModel model) {
  switch (model) {
    case StartModel::best_local:
      return best_local_start(context, models);
    case StartModel::average:
      return average_start(context, models);
    case StartModel::kd:
      return kd_start(context, models, earlier);
    case StartModel::random:
    case StartModel::automatic:
      break;
  }
  return random_start(context);
}

net::Task<Start> with_head(const RunContext& context, Start start) {
  WithoutSums without;
  auto fitting = with_head_from_sums(context, std::move(start.state), without);
  FittedHead fitted = co_await std::move(fitting);
  start.state = std::move(fitted.state);
  start.report["head"] = std::move(fitted.report);
  co_return start;
}

/// What making something has cost.
struct Cost {
  double seconds = 0;
  std::uint64_t bytes_up = 0, bytes_down = 0;

  Cost& operator+=(const Cost& other) {
    seconds += other.seconds;
    bytes_up += other.bytes_up;
    bytes_down += other.bytes_down;
    return *this;
  }
};

class Choice {
 public:
  Choice(const RunContext& context, const LocalModels& models, const Recovery& earlier)
      : context_(context),
        models_(models),
        earlier_(earlier),
        began_at_(context.clock()),
        best_local_(models.best_shared()) {}

  net::Task<Start> run() {
    std::vector<StartCandidate> candidates = possible_starts(context_.options());
    const StartCandidate fallback{StartModel::best_local, StartHead::own};
    const bool is_listed = std::ranges::find(candidates, fallback) != candidates.end();
    if (best_local_ != nullptr && !is_listed) candidates.push_back(fallback);
    for (const StartCandidate& candidate : candidates) {
      auto trying = attempt(candidate);
      co_await std::move(trying);
    }
    if (!best_) throw Error(Errc::run_failed, "start.model auto: " + failures_);
    nlohmann::json& report = best_->report;
    report["chosen"] = text_of(chosen_);
    report["candidates"] = std::move(rows_);
    if (best_local_ != nullptr) report["ahead_of_best_local"] = context_.metric().gain(*rating_, *best_local_->rating);
    context_.observer.on_note(
        fmt::format("start: {} ({} by the validation source)", text_of(chosen_), context_.rating_words(*rating_)));
    co_return std::move(*best_);
  }

 private:
  /// By now, from when the choice began.
  [[nodiscard]] Cost spent() const {
    return {seconds_between(began_at_, context_.clock()), context_.roster.bytes_up(), context_.roster.bytes_down()};
  }
  [[nodiscard]] Cost since(const Cost& before) const {
    const Cost now = spent();
    return {now.seconds - before.seconds, now.bytes_up - before.bytes_up, now.bytes_down - before.bytes_down};
  }

  net::Task<> attempt(StartCandidate candidate) {
    nlohmann::json row = {{"start", text_of(candidate)}};
    try {
      auto making = made(candidate);
      const auto [start, cost] = co_await std::move(making);
      row["seconds"] = cost.seconds;
      row["bytes_up"] = cost.bytes_up;
      row["bytes_down"] = cost.bytes_down;
      auto rating = rate(candidate, start);
      const learn::Evaluation evaluation = co_await std::move(rating);
      if (evaluation.num_samples() == 0) throw Error(Errc::run_failed, "nobody rated it");
      row["counted_samples"] = evaluation.num_samples();
      row["accuracy"] = evaluation.accuracy();
      row["loss"] = evaluation.loss();
      if (!context_.metric().is_accuracy()) row["value"] = context_.metric_value(evaluation);
      context_.observer.on_note(
          fmt::format("start {}: {} by the validation source", text_of(candidate), context_.rating_words(evaluation)));
      take_if_better(candidate, start, evaluation);
    } catch (const Error& error) {
      const bool is_its_own =
          error.code() == Errc::run_failed || error.code() == Errc::usage || error.code() == Errc::data;
      if (!is_its_own) throw;
      row["failed"] = error.what();
      failures_ += fmt::format("{}{}: {}", failures_.empty() ? "" : "; ", text_of(candidate), error.what());
      context_.observer.on_note(fmt::format("start {} cannot be made: {}", text_of(candidate), error.what()));
    }
    rows_.push_back(std::move(row));
  }

  struct Made {
    Start start;
    Cost cost;
  };

  /// Of several candidates of one model that model is made once.
  net::Task<Made> made(StartCandidate candidate) {
    auto base = bases_.find(candidate.model);
    if (base == bases_.end()) {
      const Cost before = spent();
      auto making = start_from(context_, models_, earlier_, candidate.model);
      Start start = co_await std::move(making);
      base = bases_.emplace(candidate.model, Made{std::move(start), since(before)}).first;
    }
    Made result = base->second;
    if (candidate.head == StartHead::own) co_return result;
    const Cost before = spent();
    auto fitting = with_head(context_, std::move(result.start));
    result.start = co_await std::move(fitting);
    result.cost += since(before);
    co_return result;
  }

  /// All by the same samples: where clients judge, the best local model's own does not count for any.
  net::Task<learn::Evaluation> rate(StartCandidate candidate, const Start& start) const {
    const bool is_best_local = candidate == StartCandidate{StartModel::best_local, StartHead::own};
    if (is_best_local && best_local_ != nullptr) co_return *best_local_->rating;
    const std::string without =
        best_local_ == nullptr || best_local_->is_rated_by_owner ? std::string() : best_local_->client;
    context_.observer.on_phase({PhaseKind::seed_rating}, 1);
    auto rating = rate_start(context_, start.state, without);
    co_return co_await std::move(rating);
  }

  void take_if_better(StartCandidate candidate, const Start& start, const learn::Evaluation& evaluation) {
    if (best_ && !context_.metric().is_better(evaluation, *rating_)) return;
    best_ = start;
    chosen_ = {start.used, candidate.head};  // the gate may have put another in its place
    rating_ = evaluation;
  }

  const RunContext& context_;
  const LocalModels& models_;
  const Recovery& earlier_;
  TimePoint began_at_;
  const LocalModel* best_local_;
  std::map<StartModel, Made> bases_;
  std::optional<Start> best_;
  StartCandidate chosen_;
  std::optional<learn::Evaluation> rating_;
  nlohmann::json rows_ = nlohmann::json::array();
  std::string failures_;
};

}  // namespace

net::Task<Start> chosen_start(const RunContext& context, const LocalModels& models, const Recovery& earlier) {
  const FederationOptions& options = context.options();
  if (options.start == StartModel::automatic) {
    Choice choice(context, models, earlier);
    auto choosing = choice.run();
    co_return co_await std::move(choosing);
  }
  auto making = start_from(context, models, earlier, options.start);
  Start start = co_await std::move(making);
  if (options.head.start == StartHead::own) co_return start;
  auto fitting = with_head(context, std::move(start));
  co_return co_await std::move(fitting);
}

}  // namespace headstart::server
