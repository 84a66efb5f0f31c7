// What the code of a TorchScript module does, read off its graph without running it. Private to learn.
#pragma once

#include <compare>
#include <set>
#include <string>

#include <torch/csrc/jit/api/module.h>

namespace headstart::learn {

/// An attribute of every object of one TorchScript class.
struct ScriptAttribute {
  const c10::ClassType* type = nullptr;
  std::string name;
  friend auto operator<=>(const ScriptAttribute&, const ScriptAttribute&) = default;
};

struct ScriptCode {
  std::set<ScriptAttribute> assigned;  ///< self.m = ...
  std::set<ScriptAttribute> edited;    ///< self.m.add_(...), self.list.append(...), also through views and functions.
  std::set<ScriptAttribute> read;
  /// Kinds of layers ("dropout", "batch_norm") whose training flag is a constant, as tracing leaves it.
  std::set<std::string> always_training;
  std::set<std::string> never_training;
  bool draws = false;  ///< From the process-wide generator, in any of its modules, called or not.
  bool ends_in_sigmoid = false;
};

/// Of `draws` all submodules, of the rest what forward() calls.
ScriptCode read_code(const torch::jit::Module& module);

}  // namespace headstart::learn
