// The terms of a run: what every client must do alike. Declared once; they stand in the server's configuration and
// travel to the clients in Welcome, which read them with the same bounds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "shared/base/fields.hpp"
#include "shared/base/seed.hpp"
#include "shared/learn/distill.hpp"
#include "shared/learn/model.hpp"
#include "shared/learn/train.hpp"

namespace headstart::session {

struct Terms {
  std::int64_t seed = 1;
  learn::ModelSpec model;
  learn::Task task;       ///< Filled from the server's data, not a setting of its own.
  double held_out = 0.1;  ///< Fraction of a client's samples kept for its early stopping and federated evaluation.
  learn::PretrainOptions pretrain;
  learn::TrainOptions train;
  learn::DistillOptions consolidation;
  std::int64_t max_own_model = 0;  ///< Bytes of a model that a client pre-trains in place of the federated one; 0:
                                   ///< as own_model_limit() says.

  /// Where the streams of the run start; each stream is named by its place in the tree.
  [[nodiscard]] Seed seeds() const { return Seed(static_cast<std::uint64_t>(seed)); }
  [[nodiscard]] Seed client_seeds(const std::string& client) const { return seeds().child("client").child(client); }
};

void declare_fields(Fields& fields, Terms& terms);

/// Bytes that a client's own model may have, where the federated model has `federated_bytes`: as the terms say, else
/// four times these, and at least 256 MiB.
std::uint64_t own_model_limit(const Terms& terms, std::uint64_t federated_bytes);
/// A sentence where the model of `spec` would be above the limit, which is known without building it. Throws
/// Error(usage | data) as learn::state_bytes() does.
std::optional<std::string> beyond_own_model_limit(const learn::ModelSpec& spec, const Terms& terms,
                                                  std::uint64_t federated_bytes);

/// The terms as they travel, the task included, and the path of a script not.
std::string to_json_text(const Terms& terms);
/// Throws Error(protocol), naming key and bounds, where the text is not such terms.
Terms terms_from_json_text(const std::string& text);

/// A model's spec as it travels (without the path of a script).
std::string to_json_text(const learn::ModelSpec& spec);
learn::ModelSpec spec_from_json_text(const std::string& text);

}  // namespace headstart::session
