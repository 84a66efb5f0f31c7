// A script, tried forth and back before anything depends on it. Private to learn.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "shared/learn/models/model.hpp"

namespace headstart::learn {

struct ScriptTrial {
  /// Tensors that the script never changes and that the server's average would not give back as they are (infinite,
  /// above max_magnitude, or finer than its resolution): every holder of the file has them, so nobody sends them.
  std::set<std::string> constants;
  /// Sentences on what works but is probably not meant.
  std::vector<std::string> warnings;
};

/// Calls a fresh copy of the script on made-up samples from 0..1: in evaluation twice, in another order and one by one,
/// then two steps forth and back in training mode. Leaves the process-wide generator as it was. Throws Error(data), in
/// one sentence, where the script could not take part in a run.
ScriptTrial try_script(const std::string& file, const Task& task);

}  // namespace headstart::learn
