#include "shared/learn/train/local_objective.hpp"

#include <array>

namespace headstart::learn {

std::span<const LocalObjectiveRow> local_objectives() {
  static constexpr std::array rows = {LocalObjectiveRow{"proximal term", make_proximal_term},
                                      LocalObjectiveRow{"gradient clip", make_gradient_clip}};
  return rows;
}

}  // namespace headstart::learn
