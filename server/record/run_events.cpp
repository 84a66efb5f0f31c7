#include "server/record/run_events.hpp"

#include <algorithm>
#include <utility>

#include "server/record/json_values.hpp"
#include "shared/base/error.hpp"
#include "shared/plan/terms.hpp"

namespace headstart::server {

namespace {

using nlohmann::json;

json to_json(const ClientInfo& client) {
  json object = {{"client", client.name},
                 {"examples", client.num_examples},
                 {"held_out", client.num_held_out},
                 {"shares_with_peers", client.shares_with_peers},
                 {"own_architecture", client.own_architecture}};
  if (client.withholds_model) object["withholds_model"] = true;
  if (client.keeps_models) object["keeps_models"] = true;
  if (client.own_model) object["own_model"] = plan::to_json_text(*client.own_model);
  return object;
}

ClientInfo client_from(const json& event) {
  ClientInfo client;
  client.name = event.at("client").get<std::string>();
  client.num_examples = whole_number<std::int64_t>(event.at("examples"));
  client.num_held_out = whole_number<std::int64_t>(event.at("held_out"));
  client.shares_with_peers = event.at("shares_with_peers").get<bool>();
  client.withholds_model = event.value("withholds_model", false);
  client.keeps_models = event.value("keeps_models", false);
  client.own_architecture = event.at("own_architecture").get<std::string>();
  if (event.contains("own_model")) {
    client.own_model = plan::spec_from_json_text(event.at("own_model").get<std::string>());
  }
  return client;
}

LocalModelRecord local_model_from(const json& record) {
  LocalModelRecord model;
  model.num_examples = whole_number<std::int64_t>(record.at("examples"));
  model.shares_with_peers = record.at("shares_with_peers").get<bool>();
  model.withholds_model = record.value("withholds_model", false);
  model.spec = plan::spec_from_json_text(record.at("spec").get<std::string>());
  model.architecture = record.at("architecture").get<std::string>();
  model.has_federated_architecture = record.at("federated").get<bool>();
  model.pretraining.is_reused = record.at("reused").get<bool>();
  model.pretraining.seconds = record.at("seconds").get<double>();
  model.pretraining.num_epochs = whole_number<std::uint32_t>(record.at("epochs"));
  model.pretraining.best_epoch = whole_number<std::uint32_t>(record.at("best_epoch"));
  if (!record.contains("digest")) return model;
  model.digest = record.at("digest").get<std::string>();
  model.num_bytes = whole_number<std::uint64_t>(record.at("bytes"));
  if (record.contains("rating")) model.rating = evaluation_from(record.at("rating"));
  if (record.contains("rated_by_owner")) model.is_rated_by_owner = record.at("rated_by_owner").get<bool>();
  return model;
}

TrialRecord trial_from(const json& event) {
  TrialRecord trial{.inputs = event.at("inputs").get<std::string>(),
                    .setting = {event.at("temperature").get<double>(), event.at("alpha").get<double>()},
                    .rating = {event.at("accuracy").get<double>(), loss_from(event.at("loss"))},
                    .digest = event.at("digest").get<std::string>(),
                    .report = event.at("report")};
  if (event.contains("score")) trial.rating.score = event.at("score").get<double>();
  if (!trial.report.is_object()) throw Error(Errc::data, "trial: expected a report");
  return trial;
}

Milestone milestone_from(const json& event) {
  Milestone milestone;
  milestone.round = whole_number<std::int64_t>(event.at("round"));
  milestone.digest = event.at("digest").get<std::string>();
  milestone.participation.accepted = event.at("accepted").get<std::vector<std::string>>();
  milestone.participation.excluded = event.at("excluded").get<std::map<std::string, std::string>>();
  if (event.contains("strategy")) {
    if (!event.at("strategy").is_object()) throw Error(Errc::data, "strategy: expected an object");
    milestone.participation.strategy = event.at("strategy");
  }
  if (event.contains("norms")) milestone.participation.norms = event.at("norms").get<Norms>();
  milestone.bytes_up = whole_number<std::uint64_t>(event.at("bytes_up"));
  milestone.bytes_down = whole_number<std::uint64_t>(event.at("bytes_down"));
  milestone.seconds = event.at("seconds").get<double>();
  return milestone;
}

StartRecord start_from(const json& event) {
  const json& before = event.at("before_rounds");
  return {.used = event.at("used").get<std::string>(),
          .report = event.at("report"),
          .before_rounds = {.seconds = before.value("seconds", 0.0),
                            .bytes_up = whole_number<std::uint64_t>(before.at("bytes_up")),
                            .bytes_down = whole_number<std::uint64_t>(before.at("bytes_down")),
                            .pretrain_seconds = before.value("pretrain_seconds", 0.0),
                            .pretrain_reused_seconds = before.value("pretrain_reused_seconds", 0.0)}};
}

DistilledRecord distilled_from(const json& event) {
  DistilledRecord seed{.inputs = event.at("inputs").get<std::string>(),
                       .digest = event.at("digest").get<std::string>(),
                       .report = event.at("report")};
  if (!seed.report.is_object()) throw Error(Errc::data, "seed: expected a report");
  return seed;
}

StatisticsRecord statistics_from(const json& event) {
  StatisticsRecord statistics{.mean = event.at("mean").get<std::vector<double>>(),
                              .deviation = event.at("deviation").get<std::vector<double>>(),
                              .report = event.at("report")};
  const bool is_sound = statistics.mean.size() == statistics.deviation.size() &&
                        std::ranges::all_of(statistics.deviation, [](double value) { return value > 0; });
  if (!is_sound) throw Error(Errc::data, "statistics: expected a mean and a deviation above 0 of each channel");
  return statistics;
}

RosterEvent roster_from(const json& event) {
  RosterEvent roster;
  for (const json& joined : event.at("clients")) roster.clients.push_back(client_from(joined));
  return roster;
}

LimitsChangedEvent limits_from(const json& event) {
  LimitsChangedEvent limits;
  for (const json& change : event.at("changes")) {
    limits.changes.push_back({change.at("setting").get<std::string>(), change.at("was"), change.at("is")});
  }
  return limits;
}

// One writer an event.

json written(const RosterEvent& roster) {
  json list = json::array();
  for (const ClientInfo& client : roster.clients) list.push_back(to_json(client));
  return {{"event", "roster"}, {"clients", list}};
}

json written(const NewcomerEvent& newcomer) {
  json event = to_json(newcomer.client);
  event["event"] = "joined";
  return event;
}

json written(const ResumedEvent& resumed) { return {{"event", "resumed"}, {"round", resumed.round}}; }

json written(const TakenBackEvent& back) {
  return {{"event", "taken back"}, {"round", back.round}, {"kept_in", back.kept_in}, {"best", back.is_best_later}};
}

json written(const LimitsChangedEvent& limits) {
  json changes = json::array();
  for (const LimitChange& change : limits.changes) changes.push_back(server::to_json(change));
  return {{"event", "limits changed"}, {"changes", changes}};
}

json written(const StatisticsRecord& statistics) {
  return {{"event", "statistics"},
          {"mean", statistics.mean},
          {"deviation", statistics.deviation},
          {"report", statistics.report}};
}

json written(const TrialRecord& trial) {
  json event = {{"event", "trial"},
                {"inputs", trial.inputs},
                {"temperature", trial.setting.temperature},
                {"alpha", trial.setting.alpha},
                {"accuracy", trial.rating.accuracy},
                {"loss", trial.rating.loss},
                {"digest", trial.digest},
                {"report", trial.report}};
  if (trial.rating.score) event["score"] = *trial.rating.score;
  return event;
}

json written(const DistilledRecord& seed) {
  return {{"event", "seed"}, {"inputs", seed.inputs}, {"digest", seed.digest}, {"report", seed.report}};
}

json written(const LocalModelEvent& event) {
  const LocalModelRecord& model = event.model;
  json record = {{"examples", model.num_examples},
                 {"shares_with_peers", model.shares_with_peers},
                 {"spec", plan::to_json_text(model.spec)},
                 {"architecture", model.architecture},
                 {"federated", model.has_federated_architecture},
                 {"reused", model.pretraining.is_reused},
                 {"seconds", model.pretraining.seconds},
                 {"epochs", model.pretraining.num_epochs},
                 {"best_epoch", model.pretraining.best_epoch}};
  if (model.withholds_model) record["withholds_model"] = true;
  if (model.num_bytes) {
    record["digest"] = model.digest;
    record["bytes"] = *model.num_bytes;
    if (model.rating) record["rating"] = server::to_json(*model.rating);
    if (model.is_rated_by_owner) record["rated_by_owner"] = true;
  }
  return {{"event", "local model"}, {"client", event.client}, {"model", record}};
}

json written(const LeftOut& left) {
  return {{"event", "left out"}, {"phase", recorded(left.phase)}, {"client", left.client}, {"reason", left.reason}};
}

json written(const StartRecord& start) {
  return {{"event", "started"},
          {"used", start.used},
          {"report", start.report},
          {"before_rounds", server::to_json(start.before_rounds)}};
}

json written(const Milestone& milestone) {
  json event = {{"event", "model"},
                {"round", milestone.round},
                {"digest", milestone.digest},
                {"accepted", milestone.participation.accepted},
                {"excluded", milestone.participation.excluded},
                {"bytes_up", milestone.bytes_up},
                {"bytes_down", milestone.bytes_down},
                {"seconds", milestone.seconds}};
  if (!milestone.participation.strategy.empty()) event["strategy"] = milestone.participation.strategy;
  if (!milestone.participation.norms.empty()) event["norms"] = milestone.participation.norms;
  return event;
}

json written(const RoundRecord& record) { return {{"event", "measured"}, {"line", server::to_json(record)}}; }

json written(const BestEvent& best) { return {{"event", "best"}, {"round", best.round}, {"score", best.score}}; }

json written(const OverEvent&) { return {{"event", "over"}}; }

json written(const UnknownEvent&) { throw Error(Errc::internal, "an event of another version is written"); }

}  // namespace

json json_of(const RunEvent& event) {
  return std::visit([](const auto& known) { return written(known); }, event);
}

RunEvent event_from(const json& json) {
  const auto kind = json.at("event").get<std::string>();
  if (kind == "roster") return roster_from(json);
  if (kind == "joined") return NewcomerEvent{client_from(json)};
  if (kind == "resumed") return ResumedEvent{whole_number<std::int64_t>(json.at("round"))};
  if (kind == "taken back") {
    return TakenBackEvent{whole_number<std::int64_t>(json.at("round")), json.value("kept_in", std::string()),
                          json.value("best", false)};
  }
  if (kind == "limits changed") return limits_from(json);
  if (kind == "local model") {
    return LocalModelEvent{json.at("client").get<std::string>(), local_model_from(json.at("model"))};
  }
  if (kind == "statistics") return statistics_from(json);
  if (kind == "trial") return trial_from(json);
  if (kind == "seed") return distilled_from(json);
  if (kind == "left out") {
    return LeftOut{phase_from(json.at("phase").get<std::string>()), json.at("client").get<std::string>(),
                   json.at("reason").get<std::string>()};
  }
  if (kind == "started") return start_from(json);
  if (kind == "model") return milestone_from(json);
  if (kind == "measured") return round_record_from(json.at("line"));
  if (kind == "best") return BestEvent{whole_number<std::int64_t>(json.at("round")), json.at("score").get<double>()};
  if (kind == "over") return OverEvent{};
  return UnknownEvent{};
}

json to_json(const LimitChange& change) {
  return {{"setting", change.setting}, {"was", change.was}, {"is", change.is}};
}

json to_json(const BeforeRounds& before) {
  return {{"seconds", before.seconds},
          {"bytes_up", before.bytes_up},
          {"bytes_down", before.bytes_down},
          {"pretrain_seconds", before.pretrain_seconds},
          {"pretrain_reused_seconds", before.pretrain_reused_seconds}};
}

json to_json(const learn::Evaluation& evaluation) {
  json record = {{"correct", evaluation.correct},
                 {"total", evaluation.total},
                 {"predicted", evaluation.predicted},
                 {"loss_sum", evaluation.loss_sum}};
  if (evaluation.scores) {
    const learn::ScoreCounts& scores = *evaluation.scores;
    record["scores"] = {{"confusion", scores.confusion}, {"positives", scores.positives},
                        {"negatives", scores.negatives}, {"answers", scores.answers},
                        {"right", scores.right},         {"confidence", scores.confidence}};
  }
  for (const std::optional<double>& area : evaluation.exact_auc) {
    record["auc"].push_back(area ? json(*area) : json());
  }
  return record;
}

namespace {

std::vector<std::int64_t> whole_numbers(const json& list) {
  std::vector<std::int64_t> values;
  for (const auto& value : list) values.push_back(whole_number<std::int64_t>(value));
  return values;
}

/// Of `num_classes` classes; throws Error(data) where the lists are not as long as those of so many.
learn::ScoreCounts scores_from(const json& record, std::size_t num_classes) {
  learn::ScoreCounts scores{.confusion = whole_numbers(record.at("confusion")),
                            .positives = whole_numbers(record.at("positives")),
                            .negatives = whole_numbers(record.at("negatives")),
                            .answers = whole_numbers(record.at("answers")),
                            .right = whole_numbers(record.at("right")),
                            .confidence = whole_numbers(record.at("confidence"))};
  const auto num_bins = static_cast<std::size_t>(learn::num_confidence_bins);
  const bool is_sound = num_classes > 0 && scores.confusion.size() == num_classes * num_classes &&
                        scores.positives.size() == scores.negatives.size() &&
                        scores.positives.size() % num_classes == 0 && scores.answers.size() == num_bins &&
                        scores.right.size() == num_bins && scores.confidence.size() == num_bins;
  if (!is_sound) throw Error(Errc::data, "an evaluation: score counts of other classes or bins");
  return scores;
}

}  // namespace

learn::Evaluation evaluation_from(const json& json) {
  learn::Evaluation evaluation;
  const auto counts = [&json](const char* key) { return whole_numbers(json.at(key)); };
  evaluation.correct = counts("correct");
  evaluation.total = counts("total");
  evaluation.predicted = counts("predicted");
  evaluation.loss_sum = loss_from(json.at("loss_sum"));
  if (json.contains("scores")) evaluation.scores = scores_from(json.at("scores"), evaluation.total.size());
  if (json.contains("auc")) {
    for (const auto& area : json.at("auc")) {
      evaluation.exact_auc.push_back(area.is_null() ? std::nullopt : std::optional(area.template get<double>()));
    }
    if (evaluation.exact_auc.size() != evaluation.total.size()) {
      throw Error(Errc::data, "an evaluation: AUC of other classes");
    }
  }
  return evaluation;
}

}  // namespace headstart::server
