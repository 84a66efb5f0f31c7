#include "server/record/recovery.hpp"

#include <cmath>
#include <limits>

#include <doctest/doctest.h>

#include "tests/support/throws.hpp"

namespace headstart::server {
namespace {

using nlohmann::json;

json started() { return json_of(StartRecord{"random", json::object(), {}}); }

json model(std::int64_t round) {
  Milestone milestone;
  milestone.round = round;
  milestone.bytes_up = static_cast<std::uint64_t>(round) * 10;
  return json_of(milestone);
}

json measured(std::int64_t round) {
  return json_of(RoundRecord{.round = round,
                             .seconds = 1.5,
                             .bytes_up = 1,
                             .bytes_down = 2,
                             .model_digest = {},
                             .participation = {},
                             .refused = {},
                             .central = Measurement{.accuracy = 0.5, .class_accuracy = {}},
                             .federated = {},
                             .validation_accuracy = {}});
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
  return json_of(LocalModelEvent{"silo-1", model});
}

TEST_CASE("a pre-trained model's record reads as written, with and without its weights") {
  json collected = local_model();
  json announced = collected;
  for (const char* key : {"digest", "bytes", "rating", "rated_by_owner"}) announced["model"].erase(key);
  for (const json& event : {collected, announced}) {
    const Recovery recovery = replay({event}, "run").recovery;
    CHECK(json_of(LocalModelEvent{"silo-1", recovery.local_models.at("silo-1")}) == event);
  }
}

TEST_CASE("a loss that is infinite is written down and read again as such") {
  LocalModelRecord diverged;
  diverged.num_bytes = 1000;
  diverged.rating = learn::Evaluation{{0}, {10}, {10}, std::numeric_limits<double>::infinity()};
  const TrialRecord trial{"inputs", {3, 0.5}, {0.1, std::numeric_limits<double>::infinity()}, "digest", json::object()};
  const Recovery recovery =
      replay({json::parse(json_of(LocalModelEvent{"silo-1", diverged}).dump()), json::parse(json_of(trial).dump())},
             "run")
          .recovery;
  CHECK(std::isinf(recovery.local_models.at("silo-1").rating->loss()));
  REQUIRE(recovery.trials.size() == 1);
  CHECK(std::isinf(recovery.trials[0].rating.loss));
  CHECK(json_of(recovery.trials[0]) == json_of(trial));
}

TEST_CASE("what samples are normalised by is kept, whatever the run goes back to") {
  const StatisticsRecord statistics{{0.1 + 0.2, -7}, {1.0 / 3, 1}, {{"silos", {"silo-0"}}}};
  const json event = json::parse(json_of(statistics).dump());
  LeftOut failed;
  failed.phase.kind = PhaseKind::describing;
  failed.client = "silo-1";
  const json left = json_of(failed);
  const Recovery recovery = recovery_at(replay({left, event, started(), model(0), measured(0)}, "run"), std::nullopt);
  REQUIRE(recovery.statistics);
  CHECK(recovery.statistics->mean == statistics.mean);
  CHECK(recovery.statistics->deviation == statistics.deviation);
  CHECK(json_of(*recovery.statistics) == event);
  CHECK(recovery.left_out.size() == 1);
  // Where they were not kept, all silos are asked again.
  CHECK(recovery_at(replay({left}, "run"), std::nullopt).left_out.empty());
  json odd = event;
  odd["deviation"] = {1, 0};
  CHECK(test::error_of(Errc::data, [&] { (void)replay({odd}, "run"); }).find("deviation above 0") != std::string::npos);
}

TEST_CASE("a run stands where its newest usable milestone says, with the lines up to it") {
  const Replay whole = replay({started(), model(0), measured(0), model(1), measured(1), model(2), measured(2)}, "run");
  REQUIRE(whole.milestones.size() == 3);
  Replay earlier = whole;
  earlier.milestones.resize(1);
  const Recovery recovery = recovery_at(earlier, whole.milestones[1]);
  CHECK(recovery.milestone->round == 1);
  CHECK(recovery.lines.size() == 2);
  CHECK(recovery.start.value().used == "random");
  const Recovery from_the_start = recovery_at(replay({started(), model(0), measured(0)}, "run"), std::nullopt);
  CHECK_FALSE(from_the_start.start);
  CHECK(from_the_start.lines.empty());
}

json resumed(std::int64_t round) { return json_of(ResumedEvent{round}); }

TEST_CASE("a round that was gone through again replaces what came of it before") {
  const Replay again = replay(
      {started(), model(0), measured(0), model(1), measured(1), model(2), measured(2), resumed(1), model(2)}, "run");
  REQUIRE(again.milestones.size() == 3);
  CHECK(again.recovery.lines.size() == 2);
  const Replay from_nothing = replay({started(), model(0), measured(0), resumed(-1)}, "run");
  CHECK(from_nothing.milestones.empty());
  CHECK(from_nothing.recovery.lines.empty());
  CHECK_FALSE(from_nothing.recovery.start);
}

TEST_CASE("a run that was taken back stands there, without the best model of a later round") {
  const std::vector<json> events = {
      started(), model(0),    measured(0), model(1),   measured(1), json_of(BestEvent{1, 0.5}),
      model(2),  measured(2), model(3),    measured(3)};
  for (const auto& [round, best] : {std::pair{2, 0.5}, std::pair{0, -1.0}}) {
    std::vector<json> all = events;
    all.push_back(json_of(TakenBackEvent{round, "taken-back-1", false}));
    const Replay back = replay(all, "run");
    CHECK(back.milestones.back().round == round);
    CHECK(back.recovery.lines.size() == static_cast<std::size_t>(round) + 1);
    CHECK(back.recovery.best_score == best);
  }
}

TEST_CASE("the norms of a round's updates are kept with its model") {
  Milestone milestone;
  milestone.participation.norms = {{"silo-1", 0.5}, {"silo-2", 1e6}};
  const Replay read = replay({started(), json_of(milestone)}, "run");
  CHECK(read.milestones.back().participation.norms == milestone.participation.norms);
}

TEST_CASE("limits may change on resumption: what they were and are is told, and no other setting may") {
  const auto run_with = [](double norm, std::int64_t seed) {
    return json{{"config",
                 {{"limits", {{"update_norm", norm}, {"examples", 0}, {"own_model", 0}, {"handshakes", 9}}},
                  {"run", {{"seed", seed}}}}}};
  };
  CHECK(changed_limits(run_with(0, 1), run_with(0, 1)).empty());
  const std::vector<LimitChange> changes = changed_limits(run_with(0, 1), run_with(2.5, 1));
  REQUIRE(changes.size() == 1);
  CHECK(to_json(changes[0]) == json{{"setting", "limits.update_norm"}, {"was", 0.0}, {"is", 2.5}});
  require_same_run(run_with(0, 1), run_with(2.5, 1), "run", "an unfinished run");
  CHECK(test::error_of(Errc::usage, [&] {
          require_same_run(run_with(0, 1), run_with(2.5, 2), "run", "an unfinished run");
        }).find("run.seed was 1, is 2") != std::string::npos);
}

json left_out(Phase phase, const std::string& client) { return json_of(LeftOut{std::move(phase), client, "lost"}); }

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
  with_seed.insert(with_seed.begin() + 4, json_of(DistilledRecord{"inputs", "digest", json::object()}));
  CHECK(left_out_at(with_seed, -1) == "acd");
  const json trial = json_of(TrialRecord{"inputs", {1, 0.5}, {0.5, 1}, "digest", json::object()});
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
  const Recovery recovery = replay({json_of(RosterEvent{{client}}), json_of(NewcomerEvent{other})}, "run").recovery;
  CHECK(recovery.roster.size() == 2);
  CHECK(recovery.num_newcomers == 1);
  CHECK(test::code_of([&] { replay({json_of(NewcomerEvent{other})}, "run"); }) == Errc::data);
}

TEST_CASE("what FedDF cost comes back with the model that it made") {
  Milestone milestone;
  milestone.round = 1;
  milestone.participation = {
      .accepted = {"a"}, .excluded = {{"b", "late"}}, .strategy = {{"feddf", {{"teachers", 1}, {"seconds", 0.5}}}}};
  const Replay replayed = replay({started(), model(0), json_of(milestone)}, "run");
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
  ClientInfo client;
  client.name = "a";
  json strange_spec = json_of(RosterEvent{{client}});
  strange_spec["clients"][0]["own_model"] = "{\"model\": 3}";
  const json bad_seed = json_of(DistilledRecord{"inputs", "digest", "report"});
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
                                                {{{"event", "measured"}, {"line", "line"}}}};
  for (const std::vector<json>& events : cases) {
    CAPTURE(json(events).dump());
    const std::string message = test::error_of(Errc::data, [&] { replay(events, "runs/a"); });
    CHECK(message.find("runs/a: the journal is of another version of headstart") == 0);
  }
}

TEST_CASE("a round's record reads as written: what is not there, a loss without bound, and what a strategy adds") {
  RoundRecord diverged;
  diverged.round = 7;
  diverged.seconds = 3;
  diverged.bytes_up = 5'000'000'001;
  diverged.model_digest = "digest";
  diverged.participation = {.accepted = {"a"},
                            .excluded = {{"b", "late"}},
                            .strategy = {{"feddf", {{"teachers", 1}}}},
                            .norms = {{"a", 0.1}}};
  diverged.refused = {{"b", {{"late", 2}}}};
  diverged.central = Measurement{0.1, std::numeric_limits<double>::infinity(), {0.2, 0}, 60};
  RoundRecord federated;
  federated.federated = Measurement{0.75, 1.25, {1, 0.5}, 12};
  federated.validation_accuracy = 0.75;
  RoundRecord measured_by_metric;
  measured_by_metric.validation = {{"metric", "recall:1"}, {"value", 0.25}};
  measured_by_metric.metrics = {{"central", {{"auc", 0.75}}}, {"own", {{"dice", 0.5}}}};
  measured_by_metric.silo_metrics = {{"st-mary", {{"auc", nullptr}}}};
  CHECK(round_record_from(to_json(measured_by_metric)).participation.strategy.empty());
  for (const RoundRecord& record : {RoundRecord{}, diverged, federated, measured_by_metric}) {
    const std::string written = to_json(record).dump();
    CHECK(to_json(round_record_from(json::parse(written))).dump() == written);
  }
  const RoundRecord read = round_record_from(json::parse(to_json(diverged).dump()));
  CHECK(std::isinf(read.central->loss));
  CHECK(read.participation.strategy == diverged.participation.strategy);
  CHECK(read.refused == diverged.refused);
  CHECK_FALSE(read.federated);
}

TEST_CASE("a round's line of an older run needs no more than its number and bytes") {
  const RoundRecord record = round_record_from({{"round", 3}, {"bytes_up", 1}, {"bytes_down", 2}});
  CHECK(record.round == 3);
  CHECK_FALSE(record.central);
  CHECK(record.participation.strategy.empty());
}

TEST_CASE("each event reads as written; one of another version is passed over") {
  ClientInfo client;
  client.name = "a";
  client.own_model.emplace();
  const StartRecord start{"kd", {{"student", "a"}}, {1.5, 10, 20, 2.5, 3.5}};
  Milestone milestone;
  milestone.round = 2;
  milestone.participation = {{"a"}, {{"b", "late"}}, {{"feddf", 1}}, {{"a", 0.5}}};
  LeftOut left;
  left.phase = {PhaseKind::training, 2};
  left.client = "a";
  std::vector<RunEvent> events;
  events.emplace_back(RosterEvent{{client}});
  events.emplace_back(NewcomerEvent{client});
  events.emplace_back(ResumedEvent{2});
  events.emplace_back(TakenBackEvent{2, "taken-back-1", true});
  events.emplace_back(LimitsChangedEvent{{{"limits.examples", 1, 2}}});
  events.emplace_back(TrialRecord{"inputs", {3, 0.5}, {0.1, 0.2}, "digest", {{"k", 1}}});
  events.emplace_back(TrialRecord{"inputs", {3, 0.5}, {0.1, 0.2, 0.75}, "digest", {{"k", 1}}});
  events.emplace_back(DistilledRecord{"inputs", "digest", {{"k", 1}}});
  events.emplace_back(LocalModelEvent{"a", {}});
  events.emplace_back(left);
  events.emplace_back(start);
  events.emplace_back(milestone);
  events.emplace_back(RoundRecord{});
  events.emplace_back(BestEvent{2, 0.5});
  events.emplace_back(OverEvent{});
  for (const RunEvent& event : events) {
    const json written = json_of(event);
    CAPTURE(written.dump());
    const RunEvent read = event_from(json::parse(written.dump()));
    CHECK(read.index() == event.index());
    CHECK(json_of(read).dump() == written.dump());
  }
  const json later = {{"event", "moved"}, {"to", 3}};
  CHECK(std::holds_alternative<UnknownEvent>(event_from(later)));
  CHECK(replay({later, started(), later}, "run").recovery.start);
}

TEST_CASE("an evaluation reads as written, and counts that are none are refused") {
  const learn::Evaluation evaluation{{8, 9}, {10, 10}, {9, 11}, 6.25};
  const json written = to_json(evaluation);
  CHECK(to_json(evaluation_from(written)) == written);
  learn::Evaluation scored = evaluation;
  scored.scores = learn::ScoreCounts::of_none(2);
  scored.scores->positives[3] = 9;
  scored.scores->confidence[14] = std::int64_t{20} << learn::confidence_fraction_bits;
  scored.exact_auc = {0.1 + 0.2, std::nullopt};
  const learn::Evaluation read = evaluation_from(json::parse(to_json(scored).dump()));
  CHECK((read.scores == scored.scores));
  CHECK((read.exact_auc == scored.exact_auc));
  for (const char* key : {"confusion", "positives", "answers"}) {
    json short_list = to_json(scored);
    short_list["scores"][key].erase(0);
    CHECK(test::code_of([&] { (void)evaluation_from(short_list); }) == Errc::data);
  }
  json fractional = written;
  fractional["total"][1] = 1e300;
  CHECK(test::code_of([&] { (void)evaluation_from(fractional); }) == Errc::data);
}

}  // namespace
}  // namespace headstart::server
