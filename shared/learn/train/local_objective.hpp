// What a silo minimises beside the loss of its samples. One file and one row of local_objectives() each.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "shared/learn/core/parts.hpp"
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

  /// The parts of the update beside the model, as the strategy has them (Strategy::returned_parts); empty for most.
  /// Asked once, likewise.
  [[nodiscard]] virtual Parts returned(const std::vector<Tensor>& /*trained*/) const { return {}; }
};

/// What the local objectives of a client get and give beside the model.
struct ObjectiveStates {
  StateDict before;  ///< What the last round left whose result counted, of each objective under "NAME/"; may be empty.
  StateDict after;   ///< What this round leaves, likewise.
  Parts sent;        ///< What the server sent.
  Parts returned;    ///< What goes to the server.
};

/// What an objective is made from.
struct ObjectiveInputs {
  const TrainOptions& options;
  const std::vector<NamedTensor>& received;  ///< The parameters of the model as the server sent it.
  StateDict memory;                          ///< What it remembered of the last round that counted; may be empty.
  const Parts& sent;
};

struct LocalObjectiveRow {
  std::string_view name;
  /// Null where the options do not ask for it. Throws Error(usage) where a part that it takes is missing, or is not of
  /// the schema that it must have.
  std::unique_ptr<LocalObjective> (*make)(const ObjectiveInputs& inputs);
  /// The parts of ObjectiveStates::sent that it takes.
  std::span<const std::string_view> takes = {};
};

/// In the order in which they are applied.
std::span<const LocalObjectiveRow> local_objectives();

/// FedProx: mu / 2 ||w - x||^2. Li et al. 2018 (arXiv 1812.06127).
std::unique_ptr<LocalObjective> make_proximal_term(const ObjectiveInputs& inputs);
/// Clips the gradient, with what the objectives before have made of it.
std::unique_ptr<LocalObjective> make_gradient_clip(const ObjectiveInputs& inputs);

}  // namespace headstart::learn
