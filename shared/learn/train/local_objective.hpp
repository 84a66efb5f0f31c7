// What a silo minimises beside the loss of its samples. One file and one row of local_objectives() each.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "shared/learn/core/state.hpp"
#include "shared/learn/core/tensor.hpp"

namespace headstart::learn {

struct TrainOptions;

/// Lives for one round of local training.
class LocalObjective {
 public:
  LocalObjective() = default;
  LocalObjective(const LocalObjective&) = delete;
  LocalObjective& operator=(const LocalObjective&) = delete;
  virtual ~LocalObjective() = default;

  /// Changes the gradients of `parameters` before the optimiser, its momentum and its weight decay see them. Called
  /// once a step, without gradients being recorded.
  virtual void correct_gradients(const std::vector<Tensor>& parameters) = 0;

  /// What it wants back in the next round (a control variate), under names of its choice; empty for most. Asked once,
  /// when the round's training is done. `trained`: the parameters then.
  [[nodiscard]] virtual StateDict remembered(const std::vector<Tensor>& /*trained*/) const { return {}; }
};

/// What the objectives of a client remember: of each under "NAME/".
struct ObjectiveMemory {
  StateDict before;  ///< What the last round left whose result counted; empty: there is none.
  StateDict after;   ///< What this round leaves.
};

struct LocalObjectiveRow {
  std::string_view name;
  /// Null where `options` do not ask for it. `received`: the parameters of the model as the server sent it. `memory`:
  /// what it remembered of the last round that counted.
  std::unique_ptr<LocalObjective> (*make)(const TrainOptions& options, const std::vector<Tensor>& received,
                                          const StateDict& memory);
};

std::span<const LocalObjectiveRow> local_objectives();

/// FedProx: mu / 2 ||w - x||^2. Li et al. 2018 (arXiv 1812.06127).
std::unique_ptr<LocalObjective> make_proximal_term(const TrainOptions& options, const std::vector<Tensor>& received,
                                                   const StateDict& memory);

}  // namespace headstart::learn
