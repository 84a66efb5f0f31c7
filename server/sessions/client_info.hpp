// What the server knows of a client that has no connection.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "shared/learn/models/model.hpp"
#include "shared/plan/tasks.hpp"

namespace headstart::server {

/// What a client brought when it joined; binds for the run.
struct ClientInfo {
  std::string name;
  std::int64_t num_examples = 0;
  std::int64_t num_held_out = 0;
  std::optional<learn::ModelSpec> own_model;  ///< Where it pre-trains another architecture.
  std::string own_architecture;
  bool shares_with_peers = false;  ///< Its pre-trained model may go to other clients.
  bool withholds_model = false;    ///< It gives answers and sums, and no pre-trained model. Not beside the other.
  bool keeps_models = false;       ///< Its people keep the global models (plan::task::keep).
};

using plan::Pretraining;

/// Results that did not count, by kind.
using RefusalCounts = std::map<std::string, std::int64_t>;

/// What the client said of share_model: "peers", "server" or "answers".
inline const char* share_word(const ClientInfo& client) {
  if (client.withholds_model) return "answers";
  return client.shares_with_peers ? "peers" : "server";
}

}  // namespace headstart::server
