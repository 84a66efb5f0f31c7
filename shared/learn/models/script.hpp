// A TorchScript file in memory: where its state lies, and one safe call of it. Private to learn.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include <torch/csrc/jit/api/module.h>

#include "shared/learn/models/model.hpp"
#include "shared/learn/models/script_code.hpp"

namespace headstart::learn {

/// The last line of what TorchScript says of an error, which has the error itself; above it stand pages of traceback.
std::string last_words(const std::exception& error);

/// The place of a tensor in a scripted module. The script may put another tensor there at any time.
struct ScriptSlot {
  enum class Kind { parameter, buffer, attribute };

  std::string name;  ///< PyTorch's: "layers.0.weight".
  Kind kind = Kind::buffer;
  c10::intrusive_ptr<c10::ivalue::Object> owner;
  std::size_t index = 0;
  bool is_assigned = false;  ///< The script puts other tensors here.
  bool is_edited = false;    ///< The script changes the tensor in place.
  bool is_read = false;

  [[nodiscard]] bool is_written() const { return is_assigned || is_edited; }
  [[nodiscard]] bool holds_tensor() const { return owner->getSlot(index).isTensor(); }
  [[nodiscard]] Tensor tensor() const { return owner->getSlot(index).toTensor(); }
  void set(const Tensor& tensor) const { owner->setSlot(index, tensor); }
};

/// A scripted module on the CPU, in evaluation mode.
class Script {
 public:
  /// Throws Error(data) naming the file where it is no TorchScript, has no trainable parameters, or has state that
  /// could not be sent, saved and loaded: the tensor or attribute by name, and what to do.
  Script(std::string file, const Task& task);

  /// The logits [B, classes] of each head for float32 samples [B, ...]. The script works on a copy
  /// of `x`. Throws Error(data), with the script's last words, where it fails or returns anything else.
  std::vector<Tensor> forward(const Tensor& x);
  /// 2 where forward() is declared to return a pair of tensors and there is a submodule head2 with parameters, else 1.
  [[nodiscard]] std::int64_t num_heads() const { return num_heads_; }
  /// Whether the script says what its first head reads: a method features(x) -> Tensor and a linear submodule `head`.
  [[nodiscard]] bool shows_features() const { return shows_features_; }
  /// What features() returns, float32 [B, F]. Throws Error(data) as forward(), and where the head of these features
  /// does not give what forward() gives. Only where shows_features().
  Tensor features(const Tensor& x);
  void set_training(bool training);
  /// Moves every tensor of the module.
  void to(c10::Device device);

  /// Parameters, buffers and plain tensor attributes; a tensor or place of several names stands under its first.
  [[nodiscard]] const std::vector<ScriptSlot>& slots() const { return slots_; }
  /// Parameters and buffers that are another one: further name -> first name.
  [[nodiscard]] const std::map<std::string, std::string>& tied_names() const { return tied_names_; }
  [[nodiscard]] const ScriptCode& code() const { return code_; }
  [[nodiscard]] const std::string& file() const { return file_; }
  [[nodiscard]] const Task& task() const { return task_; }
  [[noreturn]] void refuse(const std::string& fault) const;

 private:
  void find_slots(const torch::jit::Module& module, const std::string& prefix, std::vector<ScriptSlot>& found) const;
  void keep_slots(std::vector<ScriptSlot> found);
  [[nodiscard]] bool changes_objects_of(const c10::ClassType& type) const;
  [[noreturn]] void refuse_changing_attribute(const std::string& name, const std::string& type) const;
  void check_slot(const ScriptSlot& slot) const;
  [[nodiscard]] const ScriptSlot* slot_named(const std::string& name) const;
  void try_features(const Tensor& x, const Tensor& features);

  std::string file_;
  Task task_;
  torch::jit::Module module_;
  ScriptCode code_;
  bool is_training_ = false;
  std::int64_t num_heads_ = 1;
  bool shows_features_ = false;
  bool features_are_tried_ = false;
  std::vector<ScriptSlot> slots_;
  std::map<std::string, std::string> tied_names_;
};

}  // namespace headstart::learn
