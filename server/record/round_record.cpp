#include "server/record/round_record.hpp"

#include "server/record/json_values.hpp"
#include "shared/base/error.hpp"

namespace headstart::server {

namespace {

using nlohmann::json;

/// Null without a measurement.
json to_json(const std::optional<Measurement>& measurement) {
  if (!measurement) return nullptr;
  return {{"accuracy", measurement->accuracy},
          {"loss", measurement->loss},
          {"class_accuracy", measurement->class_accuracy},
          {"samples", measurement->num_samples}};
}

/// Takes a value out of `object`, so that what is left is the strategy's; nothing where it is not there.
std::optional<json> taken(json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) return std::nullopt;
  json value = std::move(*found);
  object.erase(found);
  return value;
}

std::optional<Measurement> measurement_from(json& object) {
  Measurement measurement;
  const std::optional<json> accuracy = taken(object, "accuracy");
  if (accuracy) measurement.accuracy = accuracy->get<double>();
  if (const auto loss = taken(object, "loss")) measurement.loss = loss_from(*loss);
  if (const auto classes = taken(object, "class_accuracy")) {
    measurement.class_accuracy = classes->get<std::vector<double>>();
  }
  if (const auto samples = taken(object, "samples")) measurement.num_samples = whole_number<std::int64_t>(*samples);
  return accuracy ? std::optional(measurement) : std::nullopt;
}

}  // namespace

std::optional<Measurement> measurement_of(const std::optional<learn::Evaluation>& evaluation) {
  if (!evaluation) return std::nullopt;
  return Measurement{evaluation->accuracy(), evaluation->loss(), evaluation->class_accuracy(),
                     evaluation->num_samples()};
}

json to_json(const RoundRecord& record) {
  json line = to_json(record.central);
  if (line.is_null()) line = json::object();
  line["round"] = record.round;
  line["seconds"] = record.seconds;
  line["bytes_up"] = record.bytes_up;
  line["bytes_down"] = record.bytes_down;
  line["model"] = record.model_digest;
  line["clients"] = record.participation.accepted;
  line["excluded"] = record.participation.excluded;
  line["norms"] = record.participation.norms;
  line["refused"] = json::object();
  for (const auto& [client, counts] : record.refused) line["refused"][client] = counts;
  line["federated"] = to_json(record.federated);
  line.update(record.participation.strategy);
  if (record.validation_accuracy) line["validation_accuracy"] = *record.validation_accuracy;
  if (!record.validation.is_null()) line["validation"] = record.validation;
  if (!record.metrics.empty()) line["metrics"] = record.metrics;
  if (!record.silo_metrics.empty()) line["silo_metrics"] = record.silo_metrics;
  return line;
}

RoundRecord round_record_from(const json& line) {
  if (!line.is_object()) throw Error(Errc::data, "a round: expected an object");
  json left = line;
  RoundRecord record;
  record.round = whole_number<std::int64_t>(line.at("round"));
  record.bytes_up = whole_number<std::uint64_t>(line.at("bytes_up"));
  record.bytes_down = whole_number<std::uint64_t>(line.at("bytes_down"));
  for (const char* key : {"round", "bytes_up", "bytes_down"}) left.erase(key);
  record.central = measurement_from(left);
  if (const auto seconds = taken(left, "seconds")) record.seconds = seconds->get<double>();
  if (const auto digest = taken(left, "model")) record.model_digest = digest->get<std::string>();
  if (const auto names = taken(left, "clients")) {
    record.participation.accepted = names->get<std::vector<std::string>>();
  }
  if (const auto excluded = taken(left, "excluded")) {
    record.participation.excluded = excluded->get<std::map<std::string, std::string>>();
  }
  if (const auto norms = taken(left, "norms")) record.participation.norms = norms->get<Norms>();
  if (const auto refused = taken(left, "refused")) {
    record.refused = refused->get<std::map<std::string, RefusalCounts>>();
  }
  if (auto federated = taken(left, "federated"); federated && !federated->is_null()) {
    record.federated = measurement_from(*federated);
  }
  if (const auto accuracy = taken(left, "validation_accuracy")) record.validation_accuracy = accuracy->get<double>();
  if (auto validation = taken(left, "validation")) record.validation = std::move(*validation);
  if (auto metrics = taken(left, "metrics")) record.metrics = std::move(*metrics);
  if (auto by_silo = taken(left, "silo_metrics")) record.silo_metrics = std::move(*by_silo);
  record.participation.strategy = std::move(left);
  return record;
}

}  // namespace headstart::server
