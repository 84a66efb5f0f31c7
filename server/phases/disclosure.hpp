// Whose pre-trained models may reach other silos, and what a run may do within that.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "server/config/federation_options.hpp"
#include "server/record/run_events.hpp"
#include "server/sessions/released_state.hpp"

namespace headstart::server {

/// What the silos said (share_model), in name order.
struct Consents {
  std::vector<std::string> with_peers;        ///< Other silos may see the model.
  std::vector<std::string> with_server;       ///< The server alone may.
  std::vector<std::string> with_nobody = {};  ///< Nobody may: they give answers and sums.
};

/// What of the configured run hands one silo's weights to others, beyond what they consented to, and what the rule
/// makes of it.
struct ConsentRuling {
  TransferSet transfer = TransferSet::public_large;  ///< To be used in place of the configured one.
  std::string fallback;                              ///< A sentence where it is another one.
  std::string refusal;                               ///< A sentence where the run cannot be made; then nothing begins.
  /// Of start.model auto: candidates that the consents rule out, and why. Where all are, the run is refused.
  std::vector<std::pair<std::string, std::string>> dropped = {};
};

/// The rule, the same at every start of a run, before anything is trained:
///   - distilling on student data takes two silos that share with peers, as student and teacher; with fewer it is done
///     on the large public set where the server has one, else the run is refused;
///   - the starts best_local and kd with a student from best or worst hand one silo's weights on: they are picked among
///     those that share with peers, and without one the run is refused;
///   - a one-shot average of fewer than three models shows each silo the other's: all of them share with peers, or the
///     run is refused;
///   - a joint head sends every silo the models that are shared with peers, of which it takes two;
///   - silos that say share_model: answers are in no start but kd by answers, and in sums for heads;
///   - federated validation sends models to other silos: only theirs that share with peers are rated. Where weights by
///     class or the pick of a student need ratings, too few of them mean a refusal.
ConsentRuling rule_on_consents(const FederationOptions& options, const Consents& consents, bool has_public_set);

/// The gate: whatever state leaves the server is made here, and what of a silo's model may, is asked once more. Rules
/// and plans keep to the consents before; where one of them errs, the model still does not leave.
class DisclosurePolicy {
 public:
  explicit DisclosurePolicy(std::string recipient) : recipient_(std::move(recipient)) {}

  /// The pre-trained model of `owner`, for the recipient. Throws Error(internal) where the owner says share_model:
  /// server and is another silo.
  [[nodiscard]] ReleasedState release(const std::string& owner, const LocalModelRecord& model,
                                      std::shared_ptr<session::ByteSource> bytes) const;

  /// A model that the server made of several silos' results, in the federated schema: `what` for the audit log. A start
  /// that is one silo's model is ruled on before anything is trained (rule_on_consents).
  [[nodiscard]] static ReleasedState release_model(std::string what, const DigestedState& model);
  /// Tensors of the server's own: samples, weights, what a strategy sends beside the model.
  [[nodiscard]] static ReleasedState release_tensors(std::string what, const DigestedState& tensors);

 private:
  std::string recipient_;
};

/// A sentence for people.
std::string words_of(const Consents& consents);

}  // namespace headstart::server
