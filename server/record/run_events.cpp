#include "server/record/run_events.hpp"

#include <limits>
#include <utility>

#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/plan/terms.hpp"

namespace headstart::server {

namespace {

using nlohmann::json;

/// Of a model that diverged it is infinite, which JSON writes as null.
double loss_from(const json& value) {
  return value.is_null() ? std::numeric_limits<double>::infinity() : value.get<double>();
}

json to_json(const ClientInfo& client) {
  json object = {{"client", client.name},
                 {"examples", client.num_examples},
                 {"held_out", client.num_held_out},
                 {"shares_with_peers", client.shares_with_peers},
                 {"own_architecture", client.own_architecture}};
  if (client.own_model) object["own_model"] = plan::to_json_text(*client.own_model);
  return object;
}

}  // namespace

template <class Integer>
Integer whole_number(const json& value) {
  const bool is_whole = value.is_number_unsigned()  ? std::in_range<Integer>(value.get<std::uint64_t>())
                        : value.is_number_integer() ? std::in_range<Integer>(value.get<std::int64_t>())
                                                    : false;
  if (!is_whole) throw Error(Errc::data, fmt::format("expected a whole number, got {}", to_line(value)));
  return value.get<Integer>();
}
template std::int64_t whole_number<std::int64_t>(const json& value);
template std::uint32_t whole_number<std::uint32_t>(const json& value);
template std::uint64_t whole_number<std::uint64_t>(const json& value);

void require_byte_counts(const json& counts) {
  (void)whole_number<std::uint64_t>(counts.at("bytes_up"));
  (void)whole_number<std::uint64_t>(counts.at("bytes_down"));
}

ClientInfo client_from(const json& event) {
  ClientInfo client;
  client.name = event.at("client").get<std::string>();
  client.num_examples = whole_number<std::int64_t>(event.at("examples"));
  client.num_held_out = whole_number<std::int64_t>(event.at("held_out"));
  client.shares_with_peers = event.at("shares_with_peers").get<bool>();
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

json roster_event(const std::vector<ClientInfo>& clients) {
  json list = json::array();
  for (const ClientInfo& client : clients) list.push_back(to_json(client));
  return {{"event", "roster"}, {"clients", list}};
}

json joined_event(const ClientInfo& client) {
  json event = to_json(client);
  event["event"] = "joined";
  return event;
}

json resumed_event(const std::optional<Milestone>& milestone) {
  return {{"event", "resumed"}, {"round", milestone ? milestone->round : -1}};
}

json taken_back_event(std::int64_t round, const std::string& kept_in, bool is_best_later) {
  return {{"event", "taken back"}, {"round", round}, {"kept_in", kept_in}, {"best", is_best_later}};
}

bool is_taken_back_event(const json& event) { return event.contains("event") && event.at("event") == "taken back"; }

json limits_changed_event(const json& changes) { return {{"event", "limits changed"}, {"changes", changes}}; }

json trial_event(const TrialRecord& trial) {
  return {{"event", "trial"},
          {"inputs", trial.inputs},
          {"temperature", trial.setting.temperature},
          {"alpha", trial.setting.alpha},
          {"accuracy", trial.rating.accuracy},
          {"loss", trial.rating.loss},
          {"digest", trial.digest},
          {"report", trial.report}};
}

json seed_event(const DistilledRecord& seed) {
  return {{"event", "seed"}, {"inputs", seed.inputs}, {"digest", seed.digest}, {"report", seed.report}};
}

json local_model_event(const std::string& client, const LocalModelRecord& model) {
  json record = {{"examples", model.num_examples},
                 {"shares_with_peers", model.shares_with_peers},
                 {"spec", plan::to_json_text(model.spec)},
                 {"architecture", model.architecture},
                 {"federated", model.has_federated_architecture},
                 {"reused", model.pretraining.is_reused},
                 {"seconds", model.pretraining.seconds},
                 {"epochs", model.pretraining.num_epochs},
                 {"best_epoch", model.pretraining.best_epoch}};
  if (model.num_bytes) {
    record["digest"] = model.digest;
    record["bytes"] = *model.num_bytes;
    if (model.rating) record["rating"] = to_json(*model.rating);
    if (model.is_rated_by_owner) record["rated_by_owner"] = true;
  }
  return {{"event", "local model"}, {"client", client}, {"model", record}};
}

json left_out_event(const LeftOut& left_out) {
  return {{"event", "left out"},
          {"phase", recorded(left_out.phase)},
          {"client", left_out.client},
          {"reason", left_out.reason}};
}

json started_event(const std::string& used, const json& report, const json& before_rounds) {
  return {{"event", "started"}, {"used", used}, {"report", report}, {"before_rounds", before_rounds}};
}

json milestone_event(const Milestone& milestone) {
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

json measured_event(const json& line) { return {{"event", "measured"}, {"line", line}}; }

json best_event(std::int64_t round, double score) { return {{"event", "best"}, {"round", round}, {"score", score}}; }

json over_event() { return {{"event", "over"}}; }

bool is_over_event(const json& event) { return event.contains("event") && event.at("event") == "over"; }

json to_json(const learn::Evaluation& evaluation) {
  return {{"correct", evaluation.correct},
          {"total", evaluation.total},
          {"predicted", evaluation.predicted},
          {"loss_sum", evaluation.loss_sum}};
}

learn::Evaluation evaluation_from(const json& json) {
  learn::Evaluation evaluation;
  const auto counts = [&json](const char* key) {
    std::vector<std::int64_t> values;
    for (const auto& value : json.at(key)) values.push_back(whole_number<std::int64_t>(value));
    return values;
  };
  evaluation.correct = counts("correct");
  evaluation.total = counts("total");
  evaluation.predicted = counts("predicted");
  evaluation.loss_sum = loss_from(json.at("loss_sum"));
  return evaluation;
}

}  // namespace headstart::server
