// Who distils what into whom: the plan of a consolidation, as a pure function of the clients' ratings.
// Source: Alballa & Canini 2024 (arXiv 2402.14922), equations 6 and 7 and table II.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/config/consolidation_options.hpp"
#include "shared/learn/distill/distiller.hpp"
#include "shared/learn/metrics/metric.hpp"
#include "shared/learn/tune/setting_search.hpp"

namespace headstart::server {

/// A client's pre-trained model as far as the plan must know it.
struct Candidate {
  std::string client;
  bool has_federated_architecture = true;
  bool can_teach = true;  ///< False where the transfer set rules it out; `reason` says why.
  std::string reason;
  bool can_host = true;                     ///< False where its client cannot be asked to distil on its own data.
  bool shares_with_peers = true;            ///< Only such a model's weights may reach other silos.
  std::optional<learn::Evaluation> rating;  ///< By the validation source.
};

/// Whether its weights, finite as they are, give no finite answers: nothing is to be learned from them.
bool has_diverged(const Candidate& candidate);

/// Ratings order: score by `metric`, then lower loss, then name; the first is the best, the last the worst.
bool ranks_before(const Candidate& a, const Candidate& b, const learn::Metric& metric = {});

struct ConsolidationPlan {
  /// Whose model the student starts from; empty: the untrained global model.
  std::optional<std::string> student;
  /// Where student data lies: the client that does the work. Empty on a public set.
  std::optional<std::string> place;
  std::vector<std::string> teachers;                          ///< Clients, in name order.
  bool copy_teaches = false;                                  ///< The frozen copy of the student is the last teacher.
  learn::Tensor weights;                                      ///< float64 [teachers (+ copy), classes].
  std::vector<std::pair<std::string, std::string>> left_out;  ///< Client and why it does not teach.
  bool is_published = true;                                   ///< A cell of the published table.
};

/// The student starts from a model that its silo shares with peers, and on student data only such models teach.
/// Throws Error(run_failed) where nobody can be the student or nobody can teach.
ConsolidationPlan plan_consolidation(const ConsolidationOptions& options, std::vector<Candidate> candidates,
                                     std::int64_t num_classes, const learn::Metric& metric = {});

}  // namespace headstart::server
