#include "server/record/round_record.hpp"

namespace headstart::server {

nlohmann::json measured(const std::optional<learn::Evaluation>& evaluation) {
  if (!evaluation) return nullptr;
  return {{"accuracy", evaluation->accuracy()},
          {"loss", evaluation->loss()},
          {"class_accuracy", evaluation->class_accuracy()},
          {"samples", evaluation->num_samples()}};
}

nlohmann::json to_json(const RoundRecord& record) {
  nlohmann::json line = measured(record.central);
  if (line.is_null()) line = nlohmann::json::object();
  line["round"] = record.round;
  line["seconds"] = record.seconds;
  line["bytes_up"] = record.bytes_up;
  line["bytes_down"] = record.bytes_down;
  line["model"] = record.model_digest;
  line["clients"] = record.participation.accepted;
  line["excluded"] = record.participation.excluded;
  line["norms"] = record.participation.norms;
  line["refused"] = nlohmann::json::object();
  for (const auto& [client, counts] : record.refused) line["refused"][client] = counts;
  line["federated"] = measured(record.federated);
  line.update(record.participation.strategy);
  if (record.validation_accuracy) line["validation_accuracy"] = *record.validation_accuracy;
  return line;
}

}  // namespace headstart::server
