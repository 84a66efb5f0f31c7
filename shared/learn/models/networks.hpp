// The built-in networks and the loader of scripts, as make_model() puts them together. Private to learn.
#pragma once

#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include <torch/nn/module.h>

#include "shared/learn/models/model.hpp"

namespace headstart::learn {

/// A layer of weight and bias. torch::nn::Linear and Conv2d do not serve: they draw their first values from the
/// process-wide generator, and so disturb whoever holds it.
struct AffineLayer : torch::nn::Module {
  Tensor weight;
  Tensor bias;  ///< Undefined for a layer without bias.

  AffineLayer(at::IntArrayRef weight_shape, bool has_bias);
  /// Weight and bias from U(-b, b), b = 1 / sqrt(fan_in): PyTorch's default for Linear and Conv2d.
  virtual void initialise(Seed seed);
};

/// A convolution with square filters.
struct Convolution : AffineLayer {
  struct Options {
    std::int64_t kernel = 3;
    std::int64_t stride = 1;
    std::int64_t padding = 0;
    bool has_bias = true;
  };
  Convolution(std::int64_t in, std::int64_t out, const Options& options);
  Tensor forward(const Tensor& x) const;

 private:
  std::int64_t stride_;
  std::int64_t padding_;
};

struct Linear : AffineLayer {
  Linear(std::int64_t in, std::int64_t out);
  Tensor forward(const Tensor& x) const;
};

/// F, F, max(1, F / 2) and C units, ReLU between.
struct SecondHead : torch::nn::Module {
  SecondHead(std::int64_t num_features, std::int64_t num_classes);
  Tensor forward(const Tensor& features) const;

  std::shared_ptr<Linear> fc1, fc2, fc3;
};

/// What the names of a second head's tensors begin with, in scripts too.
inline constexpr char second_head_prefix[] = "head2.";

/// A built-in network, its parameters not yet initialised.
struct Network : torch::nn::Module {
  /// What the heads read: [B, F].
  virtual Tensor features(const Tensor& x) = 0;

  void add_head(std::string name, std::int64_t num_features, std::int64_t num_classes);
  /// Registered after all that the network has, under second_head_prefix.
  void add_second_head();

  std::string head_name;
  std::shared_ptr<Linear> head;
  std::shared_ptr<SecondHead> second_head;  ///< Null: there is none.
};

/// BatchNorm (momentum 0.1, eps 1e-5), GroupNorm over gcd(channels, 32) groups, or nothing, with the tensor names of
/// PyTorch's modules.
struct Normalisation : torch::nn::Module {
  Normalisation(Norm kind, std::int64_t channels);
  /// GroupNorm over so many groups, which divide the channels.
  Normalisation(Norm kind, std::int64_t channels, std::int64_t num_groups);
  Tensor forward(const Tensor& x);

  Norm kind;
  std::int64_t groups;
  Tensor weight, bias, running_mean, running_var, num_batches_tracked;
};

/// What a built-in network is made and measured by.
struct NetworkRow {
  std::string_view name;
  std::shared_ptr<Network> (*make)(const ModelSpec& spec, const Task& task, Norm norm);
  double (*bytes)(const ModelSpec& spec, const Task& task, Norm norm);
};
/// Throws Error(usage) where none has the name.
const NetworkRow& network_row(const std::string& name);

/// The specification's, with `automatic` resolved.
Norm resolved_norm(const ModelSpec& spec);

/// Throws Error(usage) where the samples are no images, [channels, height, width].
void require_images(std::string_view network, const Task& task);

/// `norm` replaces the specification's. Throw Error(usage) for impossible sizes, and where cnn or resnet18 are to take
/// samples that are no images, before anything is allocated.
std::shared_ptr<Network> make_cnn(const ModelSpec& spec, const Task& task, Norm norm);
std::shared_ptr<Network> make_resnet18(const ModelSpec& spec, const Task& task, Norm norm);
std::shared_ptr<Network> make_mlp(const ModelSpec& spec, const Task& task, Norm norm);
std::shared_ptr<Network> make_linear(const ModelSpec& spec, const Task& task, Norm norm);

/// Bytes of the state that these would have. Throw as they do.
double cnn_bytes(const ModelSpec& spec, const Task& task, Norm norm);
double resnet18_bytes(const ModelSpec& spec, const Task& task, Norm norm);
double mlp_bytes(const ModelSpec& spec, const Task& task, Norm norm);
double linear_bytes(const ModelSpec& spec, const Task& task, Norm norm);
/// Likewise of one normalisation of so many channels, and of a second head.
double normalisation_bytes(Norm kind, double channels);
double second_head_bytes(double num_features, double num_classes);

/// A script is tried once in a process (see try_script()); what is to be warned of is logged then.
std::unique_ptr<Model> load_script(const ModelSpec& spec, const Task& task);

/// The process-wide CPU generator, seeded, for work whose draws nobody may notice: waits for the holder of a
/// GlobalGeneratorLease, where that is another thread, and leaves the generator as it found it.
class GeneratorLoan {
 public:
  explicit GeneratorLoan(Seed seed);
  ~GeneratorLoan();
  GeneratorLoan(const GeneratorLoan&) = delete;
  GeneratorLoan& operator=(const GeneratorLoan&) = delete;

 private:
  std::unique_lock<std::mutex> lock_;
  Tensor state_;
};

/// Moves tensors to `device` in place, without their gradients: every holder sees the moved ones.
void move_tensors(const std::vector<NamedTensor>& tensors, c10::Device device);

}  // namespace headstart::learn
