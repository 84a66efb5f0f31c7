// Who answers for the public samples, for as many consolidations as are wanted.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/phases/local_models.hpp"
#include "server/phases/run_context.hpp"
#include "shared/learn/distill/distiller.hpp"

namespace headstart::server {

class PublicTeaching {
 public:
  virtual ~PublicTeaching() = default;
  /// The public samples' targets at `temperature`, with all else as the run's consolidation has it. Throws
  /// Error(run_failed) where too few silos answer, Error(interrupted) where the run is stopped.
  virtual net::Task<learn::Guidance> guidance(double temperature) = 0;
  /// Whose models or answers they are; of answers, those of the last guidance().
  [[nodiscard]] virtual std::vector<std::string> clients() const = 0;
  /// Why the plan's student cannot be distilled into; empty where it can.
  [[nodiscard]] virtual std::string fault_of_student() const { return {}; }
  /// More for the report.
  [[nodiscard]] virtual nlohmann::json report() const { return nlohmann::json::object(); }
};

/// As consolidation.exchange, target and weights say. Teachers whose answers are not finite are left out, with a note,
/// where the student is sound. `context`, `models` and `plan` outlive it.
net::Task<std::unique_ptr<PublicTeaching>> public_teaching(const RunContext& context, const LocalModels& models,
                                                           const ConsolidationPlan& plan);

}  // namespace headstart::server
