#include "server/record/recovery.hpp"

#include <cmath>
#include <limits>

#include <doctest/doctest.h>

#include "tests/support/throws.hpp"

namespace headstart::server {
namespace {

using nlohmann::json;

const json no_bytes = {{"bytes_up", 0}, {"bytes_down", 0}};

json started() { return started_event("random", json::object(), no_bytes); }

json model(std::int64_t round) {
  Milestone milestone;
  milestone.round = round;
  milestone.bytes_up = static_cast<std::uint64_t>(round) * 10;
  return milestone_event(milestone);
}

json measured(std::int64_t round) {
  return measured_event({{"round", round}, {"bytes_up", 1}, {"bytes_down", 2}, {"accuracy", 0.5}, {"seconds", 1.5}});
}

json local_model() {
  LocalModelRecord model;
  model.num_examples = 60;
  model.spec.name = "resnet18";
  model.architecture = model.spec.architecture();
  model.pretraining.num_epochs = 15;
  model.pretraining.best_epoch = 12;
  model.pretraining.seconds = 2.5;
  model.num_bytes = 1000;
  model.digest = std::string(64, 'a');
  model.rating = learn::Evaluation{{8, 9}, {10, 10}, {9, 11}, 6.25};
  model.is_rated_by_owner = true;
  return local_model_event("silo-1", model);
}

TEST_CASE("a pre-trained model's record reads as written, with and without its weights") {
  json collected = local_model();
  json announced = collected;
  for (const char* key : {"digest", "bytes", "rating", "rated_by_owner"}) announced["model"].erase(key);
  for (const json& event : {collected, announced}) {
    const Recovery recovery = replay({event}, "run").recovery;
    CHECK(local_model_event("silo-1", recovery.local_models.at("silo-1")) == event);
  }
}

TEST_CASE("a loss that is infinite is written down and read again as such") {
  LocalModelRecord diverged;
  diverged.num_bytes = 1000;
  diverged.rating = learn::Evaluation{{0}, {10}, {10}, std::numeric_limits<double>::infinity()};
  const TrialRecord trial{"inputs", {3, 0.5}, {0.1, std::numeric_limits<double>::infinity()}, "digest", json::object()};
  const Recovery recovery =
      replay({json::parse(local_model_event("silo-1", diverged).dump()), json::parse(trial_event(trial).dump())}, "run")
          .recovery;
  CHECK(std::isinf(recovery.local_models.at("silo-1").rating->loss()));
  REQUIRE(recovery.trials.size() == 1);
  CHECK(std::isinf(recovery.trials[0].rating.loss));
  CHECK(trial_event(recovery.trials[0]) == trial_event(trial));
}

TEST_CASE("a run stands where its newest usable milestone says, with the lines up to it") {
  const Replay whole = replay({started(), model(0), measured(0), model(1), measured(1), model(2), measured(2)}, "run");
  REQUIRE(whole.milestones.size() == 3);
  Replay earlier = whole;
  earlier.milestones.resize(1);
  const Recovery recovery = recovery_at(earlier, whole.milestones[1]);
  CHECK(recovery.milestone->round == 1);
  CHECK(recovery.lines.size() == 2);
  CHECK(recovery.start.at("used") == "random");
  const Recovery from_the_start = recovery_at(replay({started(), model(0), measured(0)}, "run"), std::nullopt);
  CHECK(from_the_start.start.is_null());
  CHECK(from_the_start.lines.empty());
}

json resumed(std::int64_t round) {
  std::optional<Milestone> milestone;
  if (round >= 0) milestone.emplace().round = round;
  return resumed_event(milestone);
}

TEST_CASE("a round that was gone through again replaces what came of it before") {
  const Replay again = replay(
      {started(), model(0), measured(0), model(1), measured(1), model(2), measured(2), resumed(1), model(2)}, "run");
  REQUIRE(again.milestones.size() == 3);
  CHECK(again.recovery.lines.size() == 2);
  const Replay from_nothing = replay({started(), model(0), measured(0), resumed(-1)}, "run");
  CHECK(from_nothing.milestones.empty());
  CHECK(from_nothing.recovery.lines.empty());
  CHECK(from_nothing.recovery.start.is_null());
}

TEST_CASE("a run that was taken back stands there, without the best model of a later round") {
  const std::vector<json> events = {started(),          model(0), measured(0), model(1), measured(1),
                                    best_event(1, 0.5), model(2), measured(2), model(3), measured(3)};
  for (const auto& [round, best] : {std::pair{2, 0.5}, std::pair{0, -1.0}}) {
    std::vector<json> all = events;
    all.push_back(taken_back_event(round, "taken-back-1", false));
    const Replay back = replay(all, "run");
    CHECK(back.milestones.back().round == round);
    CHECK(back.recovery.lines.size() == static_cast<std::size_t>(round) + 1);
    CHECK(back.recovery.best_score == best);
    CHECK(is_taken_back_event(all.back()));
  }
}

TEST_CASE("the norms of a round's updates are kept with its model") {
  Milestone milestone;
  milestone.participation.norms = {{"silo-1", 0.5}, {"silo-2", 1e6}};
  const Replay read = replay({started(), milestone_event(milestone)}, "run");
  CHECK(read.milestones.back().participation.norms == milestone.participation.norms);
}

TEST_CASE("limits may change on resumption: what they were and are is told, and no other setting may") {
  const auto run_with = [](double norm, std::int64_t seed) {
    return json{{"config",
                 {{"limits", {{"update_norm", norm}, {"examples", 0}, {"own_model", 0}, {"handshakes", 9}}},
                  {"run", {{"seed", seed}}}}}};
  };
  CHECK(changed_limits(run_with(0, 1), run_with(0, 1)).empty());
  const json changes = changed_limits(run_with(0, 1), run_with(2.5, 1));
  REQUIRE(changes.size() == 1);
  CHECK(changes[0] == json{{"setting", "limits.update_norm"}, {"was", 0.0}, {"is", 2.5}});
  require_same_run(run_with(0, 1), run_with(2.5, 1), "run", "an unfinished run");
  CHECK(test::error_of(Errc::usage, [&] {
          require_same_run(run_with(0, 1), run_with(2.5, 2), "run", "an unfinished run");
        }).find("run.seed was 1, is 2") != std::string::npos);
}

json left_out(Phase phase, const std::string& client) { return left_out_event({std::move(phase), client, "lost"}); }

std::string clients_of(const std::vector<LeftOut>& left_out) {
  std::string clients;
  for (const LeftOut& left : left_out) clients += left.client;
  return clients;
}

TEST_CASE("what a run had to do without: but for what was, or will be, gone through again") {
  const std::vector<json> events = {left_out({PhaseKind::lobby}, "a"),
                                    left_out({PhaseKind::pretraining}, "b"),
                                    left_out({PhaseKind::rating}, "c"),
                                    left_out({PhaseKind::consolidation}, "d"),
                                    started(),
                                    model(0),
                                    measured(0),
                                    left_out({PhaseKind::training, 1}, "e"),
                                    model(1),
                                    left_out({PhaseKind::evaluation}, "f"),
                                    measured(1),
                                    left_out({PhaseKind::training, 2}, "g")};
  const auto left_out_at = [&](std::vector<json> all, std::int64_t round) {
    Replay whole = replay(all, "run");
    std::optional<Milestone> milestone;
    for (const auto& kept : whole.milestones) {
      if (kept.round == round) milestone = kept;
    }
    return clients_of(recovery_at(whole, milestone).left_out);
  };
  CHECK(left_out_at(events, 1) == "abcdef");
  CHECK(left_out_at(events, 0) == "abcd");
  CHECK(left_out_at(events, -1) == "ac");
  std::vector<json> resumed_since = events;
  for (const json& event : {resumed(0), left_out({PhaseKind::absence}, "h"), model(1), measured(1)}) {
    resumed_since.push_back(event);
  }
  CHECK(left_out_at(resumed_since, 1) == "abcdh");
  std::vector<json> with_seed = events;
  with_seed.insert(with_seed.begin() + 4, seed_event({"inputs", "digest", json::object()}));
  CHECK(left_out_at(with_seed, -1) == "acd");
  const json trial = trial_event({"inputs", {1, 0.5}, {0.5, 1}, "digest", json::object()});
  const std::vector<json> tuned = {left_out({PhaseKind::consolidation}, "a"), left_out({PhaseKind::seed_rating}, "b"),
                                   trial, left_out({PhaseKind::seed_rating}, "c")};
  CHECK(left_out_at(tuned, -1) == "b");
  std::vector<json> tuned_and_resumed = tuned;
  for (const json& event :
       {resumed(-1), left_out({PhaseKind::absence}, "d"), left_out({PhaseKind::seed_rating}, "e"), trial}) {
    tuned_and_resumed.push_back(event);
  }
  CHECK(left_out_at(tuned_and_resumed, -1) == "bde");
}

TEST_CASE("a roster is there as a whole; newcomers join it") {
  ClientInfo client;
  client.name = "a";
  client.num_examples = 3;
  ClientInfo other = client;
  other.name = "b";
  const Recovery recovery = replay({roster_event({client}), joined_event(other)}, "run").recovery;
  CHECK(recovery.roster.size() == 2);
  CHECK(recovery.num_newcomers == 1);
  CHECK(test::code_of([&] { replay({joined_event(other)}, "run"); }) == Errc::data);
}

TEST_CASE("what FedDF cost comes back with the model that it made") {
  Milestone milestone;
  milestone.round = 1;
  milestone.participation = {
      .accepted = {"a"}, .excluded = {{"b", "late"}}, .strategy = {{"feddf", {{"teachers", 1}, {"seconds", 0.5}}}}};
  const Replay replayed = replay({started(), model(0), milestone_event(milestone)}, "run");
  CHECK(replayed.milestones[0].participation.strategy.empty());
  CHECK(replayed.milestones[1].participation.strategy == milestone.participation.strategy);
  CHECK_FALSE(model(0).contains("strategy"));
}

TEST_CASE("events of another version are refused as such, whatever is amiss") {
  json no_used = started();
  no_used.erase("used");
  json bytes_missing = started();
  bytes_missing["before_rounds"].erase("bytes_up");
  json bytes_negative = started();
  bytes_negative["before_rounds"]["bytes_down"] = -1;
  json fractional = model(1);
  fractional["round"] = 1e300;
  json text_strategy = model(1);
  text_strategy["strategy"] = "cheap";
  json without_round = measured(1);
  without_round["line"].erase("round");
  json text_accuracy = measured(1);
  text_accuracy["line"]["accuracy"] = "high";
  json negative_epochs = local_model();
  negative_epochs["model"]["epochs"] = -1;
  json without_bytes = local_model();
  without_bytes["model"].erase("bytes");
  json strange_spec = roster_event({{"a", 1, 0, {}, "", false}});
  strange_spec["clients"][0]["own_model"] = "{\"model\": 3}";
  json bad_seed = seed_event({"inputs", "digest", "report"});
  const std::vector<std::vector<json>> cases = {{{{"kind", "started"}}},
                                                {no_used},
                                                {bytes_missing},
                                                {bytes_negative},
                                                {started(), fractional},
                                                {started(), text_strategy},
                                                {without_round},
                                                {text_accuracy},
                                                {model(1)},
                                                {strange_spec},
                                                {bad_seed},
                                                {started(), model(1), model(1)},
                                                {started(), measured(1), measured(1)},
                                                {started(), model(1), resumed(0)},
                                                {{{"event", 3}}},
                                                {measured_event("line")}};
  for (const std::vector<json>& events : cases) {
    CAPTURE(json(events).dump());
    const std::string message = test::error_of(Errc::data, [&] { replay(events, "runs/a"); });
    CHECK(message.find("runs/a: the journal is of another version of headstart") == 0);
  }
}

TEST_CASE("an evaluation reads as written, and counts that are none are refused") {
  const learn::Evaluation evaluation{{8, 9}, {10, 10}, {9, 11}, 6.25};
  const json written = to_json(evaluation);
  CHECK(to_json(evaluation_from(written)) == written);
  json fractional = written;
  fractional["total"][1] = 1e300;
  CHECK(test::code_of([&] { (void)evaluation_from(fractional); }) == Errc::data);
}

}  // namespace
}  // namespace headstart::server
