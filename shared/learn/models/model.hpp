// Models: the built-in networks and any TorchScript file, behind one interface.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <c10/core/Device.h>

#include "shared/base/fields.hpp"
#include "shared/base/seed.hpp"
#include "shared/learn/core/state.hpp"
#include "shared/learn/core/task.hpp"

namespace headstart::learn {

enum class Norm { automatic, batch, group, none };  ///< automatic: none for cnn and mlp, batch for resnet18.
inline constexpr std::pair<Norm, std::string_view> norm_words[] = {
    {Norm::automatic, "auto"}, {Norm::batch, "batch"}, {Norm::group, "group"}, {Norm::none, "none"}};

struct StatedModel;

/// Names an architecture; with a Task it determines the schema of the state.
struct ModelSpec {
  std::string name = "cnn";                       ///< "cnn", "resnet18", "mlp", "linear" "script:FILE" or "state:FILE".
  std::vector<std::int64_t> channels = {32, 64};  ///< cnn: filters of its two convolutions.
  std::int64_t kernel = 3;                        ///< cnn: side of the square filters.
  std::int64_t hidden = 128;                      ///< cnn: units of the hidden linear layer.
  std::int64_t width = 64;                        ///< resnet18: filters of the first stage (64: 11.2 M parameters).
  Norm norm = Norm::automatic;                    ///< Normalisation after each convolution, or hidden layer of mlp.
  bool second_head = false;                       ///< Not of scripts: a second classifier of the same features.
  std::vector<std::int64_t> hidden_layers = {64, 32};  ///< mlp: units of each hidden layer.

  /// state:FILE: what the file holds, which whoever can read it fills in (wire::read_stated_model). Empty elsewhere.
  std::shared_ptr<const StatedModel> stated;

  [[nodiscard]] bool is_scripted() const { return name.starts_with("script:"); }
  /// Known by its tensors alone: averaged, sent and kept, and computed in processes of the silos' own.
  [[nodiscard]] bool is_stated() const { return name.starts_with("state:"); }
  /// This program can make and compute it without a file.
  [[nodiscard]] bool is_built_in() const { return !is_scripted() && !is_stated(); }
  [[nodiscard]] std::string state_file() const { return is_stated() ? name.substr(6) : ""; }
  [[nodiscard]] std::string script_file() const { return is_scripted() ? name.substr(7) : ""; }
  /// Leaves of "script:FILE" and "state:FILE" what may be told to others.
  void forget_file() {
    if (is_scripted()) name = "script:";
    if (is_stated()) name = "state:";
  }
  /// One line that names the architecture to a peer: "cnn channels=32,64 kernel=3 hidden=128 norm=none", "linear",
  /// "mlp hidden_layers=64,32 norm=none", "script sha256=..." (the file's content, not its path), "state schema=..."
  /// (names, types and shapes). Equal lines mean interchangeable weights.
  [[nodiscard]] std::string architecture() const;
};

/// "model.name", "model.channels", ... under `prefix`.
void declare_fields(Fields& fields, const std::string& prefix, ModelSpec& spec);

/// Throws Error(usage) where the name of a model is script:FILE or state:FILE and FILE is no path (require_path).
void require_model_path(const std::string& name);

/// Which of a model's classifiers; both read the same features and have the same classes.
enum class Head { first, second };

/// One network. Not thread-safe; independent objects may be used from different threads.
class Model {
 public:
  virtual ~Model() = default;

  /// x: [B, ...], samples of the task's shape and the parameters' type, never changed. Returns logits [B, num_classes],
  /// of the first head where there are two.
  virtual Tensor forward(const Tensor& x) = 0;
  /// 1 or 2.
  [[nodiscard]] virtual std::int64_t num_heads() const { return 1; }
  /// The logits of each head, from one pass.
  virtual std::vector<Tensor> forward_heads(const Tensor& x) { return {forward(x)}; }
  /// What the heads read, [B, F]. Throws Error(usage) for a model that does not show it.
  virtual Tensor features(const Tensor& x);
  [[nodiscard]] virtual bool shows_features() const { return false; }
  /// What the names of a head's tensors begin with, and no others': "head2.". Throws Error(usage) where the model does
  /// not say it (the first head of a script), or has no such head.
  [[nodiscard]] virtual std::string head_prefix(Head head) const;
  /// Trainable parameters, in the model's own order: views, for an optimiser.
  virtual std::vector<Tensor> parameters() = 0;
  /// Parameters and buffers by name: the model's own tensors, on its device. A script may replace its buffers at any
  /// forward(): ask again after one.
  virtual std::vector<NamedTensor> named_state() = 0;
  /// parameters() with their names in named_state(), in the same order.
  std::vector<NamedTensor> named_parameters();
  virtual void set_training(bool training) = 0;
  /// Samples in a batch of work without gradients, where the caller would take `asked`.
  [[nodiscard]] virtual std::int64_t batch_size_for(std::int64_t asked) const { return asked; }
  virtual void to(c10::Device device) = 0;
  /// Turns the floating-point tensors into that type (float32 when made), dropping gradients.
  void to_type(c10::ScalarType floating);
  /// True where layers draw from LibTorch's process-wide generator while training (dropout): such models train
  /// one at a time in a process, under a GlobalGeneratorLease.
  [[nodiscard]] virtual bool draws_globally() const { return false; }

  /// A deep copy on the CPU.
  [[nodiscard]] StateDict state();
  /// Takes a complete() state as well. Throws Error(data), naming the tensor, where `state` is not of this model's
  /// schema; the model is then unchanged.
  void load(const StateDict& state);
  /// Of what state() has, which is what is exchanged: a tied tensor once, no constants that averaging would change.
  /// Its parameters are those that are trained.
  [[nodiscard]] Schema schema();
  /// `state` as PyTorch's load_state_dict(strict=True) takes it: tied tensors under each of their names, and constants.
  [[nodiscard]] virtual StateDict complete(const StateDict& state) { return state; }
  /// The inverse of complete(). Throws Error(data) where tied tensors or constants have other values than this model's.
  [[nodiscard]] virtual StateDict exchanged_part(const StateDict& state) { return state; }
};

/// Makes the network that `spec` names, for `task`, initialised from `seed` alone: cnn, mlp and linear with PyTorch's
/// defaults (uniform within 1/sqrt(fan_in)), resnet18 with torchvision's (convolutions normal with variance 2/fan_out)
/// and its tensor names; a scripted model keeps the weights of its file. A second head has F, F, F / 2 and num_classes
/// units with ReLU between (the 512, 512, 256, 10 of Molo et al. scaled to F features), PyTorch's defaults, and names
/// that begin with "head2."; the rest is the network without it, bit by bit. A script has one where it returns two
/// logits, the second from its submodule head2. GroupNorm has gcd(channels, 32) groups; in mlp one group, which is
/// LayerNorm. mlp and linear take samples of any shape, their values in a row; the features of linear are these. Throws
/// Error(usage) for an unknown name or impossible sizes, or for a network of images where samples are none, Error(data)
/// for a script that cannot be loaded or does not map the task's samples to [B, num_classes] logits, cannot be trained,
/// or has state that cannot be exchanged; of what may be meant but probably is not, the log warns once
/// (client/scripts.md lists both). A stated model has the state of its file, and throws Error(usage) where it is to
/// compute anything, or where the file was not read.
std::unique_ptr<Model> make_model(const ModelSpec& spec, const Task& task, Seed seed);

/// "cpu", "cuda", or "auto" (cuda where LibTorch has it and sees a device). Throws Error(usage): another word, or cuda
/// asked for and not there (saying whether the build or the machine lacks it).
c10::Device device_of(const std::string& word);

/// Holds the process-wide generators (CPU and CUDA), seeded, while a model that draws from them trains. Taken by
/// whoever calls train(), pretrain() or distill(), never by these; waits for the present holder; made and destroyed in
/// one thread.
class GlobalGeneratorLease {
 public:
  explicit GlobalGeneratorLease(Seed seed);
  ~GlobalGeneratorLease();
  GlobalGeneratorLease(const GlobalGeneratorLease&) = delete;
  GlobalGeneratorLease& operator=(const GlobalGeneratorLease&) = delete;
};

/// Null for models that do not draw from the process-wide generators.
std::unique_ptr<GlobalGeneratorLease> lease_for(const Model& model, Seed seed);

}  // namespace headstart::learn
