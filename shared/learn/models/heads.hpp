// One head of a model, used as a model: whatever trains, distils or evaluates then does so through that head.
#pragma once

#include <memory>
#include <string_view>
#include <utility>

#include "shared/learn/models/model.hpp"

namespace headstart::learn {

/// What training through a head changes.
enum class Trains {
  all,   ///< Every parameter that its logits depend on. The other head keeps its values, and is stale afterwards.
  head,  ///< The head's own parameters. The rest stays as it is, BatchNorm statistics included.
};
inline constexpr std::pair<Trains, std::string_view> trains_words[] = {{Trains::all, "all"}, {Trains::head, "head"}};

/// `model`, with the logits of `head` for its answer and what `trains` says for its parameters; its state is the whole
/// model's. Borrows the model, which must outlive it. With Trains::head the model stays in evaluation mode, and no
/// gradients reach the rest of it while the view lives: one such view at a time. Throws Error(usage) where the model
/// has no such head, or (Trains::head) does not say which tensors are its own.
std::unique_ptr<Model> view_of_head(Model& model, Head head, Trains trains);

}  // namespace headstart::learn
