#include "shared/learn/models/script_trial.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/aggregate/weighted_mean.hpp"
#include "shared/learn/core/random.hpp"
#include "shared/learn/models/networks.hpp"
#include "shared/learn/models/script.hpp"

namespace headstart::learn {

namespace {

using Kind = ScriptSlot::Kind;

bool is_finite(const Tensor& tensor) { return at::isfinite(tensor).all().item<bool>(); }

bool is_near(const Tensor& a, const Tensor& b, double tolerance) {
  return at::allclose(a, b, tolerance, tolerance * (1 + b.abs().max().item<double>()));
}

bool has_same_bits(const Tensor& a, const Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         bitwise_equal(StateDict(std::vector<NamedTensor>{{"", a}}), StateDict(std::vector<NamedTensor>{{"", b}}));
}

/// What an update must hold to be accepted.
bool is_acceptable(const Tensor& tensor) {
  if (!tensor.is_floating_point() || tensor.numel() == 0) return true;
  return is_finite(tensor) && tensor.abs().max().item<double>() <= max_magnitude;
}

/// Whether the average of equal copies has the same values: sums have a resolution of 2^-36.
bool survives_averaging(const Tensor& tensor) {
  if (!tensor.is_floating_point()) return true;
  if (!is_acceptable(tensor)) return false;
  const Tensor units = tensor.to(torch::kDouble) * 0x1p36;
  return units.equal(units.round());
}

std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t most = 3;
  const std::vector<std::string> shown(names.begin(),
                                       names.begin() + static_cast<std::ptrdiff_t>(std::min(most, names.size())));
  const std::string text = fmt::format("'{}'", fmt::join(shown, "', '"));
  return names.size() > most ? fmt::format("{} and {} more", text, names.size() - most) : text;
}

class Trial {
 public:
  Trial(const std::string& file, const Task& task) : script_(file, task) {
    // With as many samples as classes, logits of the wrong order would have the right shape.
    const std::int64_t num_samples = task.num_classes == 2 ? 3 : 2;
    std::vector<std::int64_t> sizes = task.shape;
    sizes.insert(sizes.begin(), num_samples);
    x_ = at::rand(sizes, generator(Seed(1)));
    labels_ = torch::arange(num_samples, torch::kLong) % task.num_classes;
  }

  ScriptTrial run() {
    std::optional<GeneratorLoan> loan;
    if (script_.code().draws) loan.emplace(Seed(1));
    check_parameters();
    check_training_flag();
    check_evaluation();
    check_training();
    for (const ScriptSlot& slot : script_.slots()) judge(slot);
    return std::move(found_);
  }

 private:
  using Snapshot = std::map<std::string, Tensor>;

  void warn(std::string sentence) { found_.warnings.push_back(std::move(sentence)); }

  void check_parameters() const {
    for (const ScriptSlot& slot : script_.slots()) {
      if (slot.kind != Kind::parameter || !slot.tensor().requires_grad() || is_acceptable(slot.tensor())) continue;
      script_.refuse(
          fmt::format("parameter '{}' holds values that are not finite, or above 2^24; save a model whose training did "
                      "not diverge",
                      slot.name));
    }
  }

  void check_training_flag() {
    if (script_.code().always_training.contains("dropout")) {
      script_.refuse(
          "dropout is on in evaluation too, so that no answer repeats itself: its training flag is fixed (by tracing, "
          "or F.dropout without training=self.training); save the module with torch.jit.script");
    }
    if (script_.code().never_training.empty()) return;
    warn(
        fmt::format("training mode changes nothing in {}: its training flag is fixed to off, as torch.jit.trace does; "
                    "save the module with torch.jit.script if it is to act in training",
                    fmt::join(script_.code().never_training, " and ")));
  }

  void check_evaluation() {
    const at::NoGradGuard no_grad;
    script_.set_training(false);
    const Snapshot before = snapshot();
    const Tensor logits = answers_to(x_);
    expect_finite(logits, "");
    if (!is_near(answers_to(x_), logits, 1e-4)) {
      script_.refuse(
          "two evaluations of the same samples differ; draws (dropout, noise) and running statistics must heed "
          "self.training");
    }
    const std::vector<std::string> changed = changed_since(before);
    if (!changed.empty()) {
      script_.refuse(fmt::format("evaluation changes {}; change buffers only where self.training", listed(changed)));
    }
    const Tensor reversed = answers_to(x_.flip(0)).flip(0);
    std::vector<Tensor> singles;
    for (const Tensor& sample : x_.split(1)) singles.push_back(answers_to(sample));
    if (!is_near(reversed, logits, 1e-3) || !is_near(torch::cat(singles), logits, 1e-3)) {
      warn(
          "its answer to a sample depends on the other samples of the batch, in evaluation too (batch statistics? a "
          "wrong dimension?); figures then depend on how samples are cut into batches");
    }
    for (const Tensor& head : logits.chunk(script_.num_heads(), 1)) warn_of_probabilities(head);
  }

  /// The logits of all heads, one beside the other.
  Tensor answers_to(const Tensor& x) { return torch::cat(script_.forward(x), 1); }

  void warn_of_probabilities(const Tensor& logits) {
    const bool sums_to_one =
        logits.size(1) > 1 && logits.ge(0).all().item<bool>() && logits.sum(1).sub(1).abs().max().item<double>() < 1e-3;
    if (!sums_to_one && !script_.code().ends_in_sigmoid) return;
    warn(fmt::format(
        "its outputs {}: training takes them for logits and applies softmax once more, which learns slowly "
        "and badly; leave {} out of forward()",
        sums_to_one ? "are probabilities that sum to one" : "come out of a sigmoid", sums_to_one ? "softmax" : "it"));
  }

  void check_training() {
    const at::AutoGradMode with_gradients(true);
    const Snapshot before = snapshot();
    std::map<std::string, bool> has_gradient;
    script_.set_training(true);
    // Twice: what one step leaves behind for the next shows only there.
    for (int step = 0; step < 2; ++step) {
      const Tensor logits = answers_to(x_);
      expect_finite(logits, " in training mode");
      if (!logits.requires_grad()) refuse_without_gradients();
      Tensor loss = torch::zeros({});
      for (const Tensor& head : logits.chunk(script_.num_heads(), 1))
        loss = loss + at::cross_entropy_loss(head, labels_);
      step_back(loss);
      for (const ScriptSlot& slot : script_.slots()) {
        if (slot.kind != Kind::parameter || !slot.tensor().requires_grad()) continue;
        const Tensor& gradient = slot.tensor().grad();
        has_gradient[slot.name] |= gradient.defined();
        if (gradient.defined() && gradient.is_sparse()) {
          script_.refuse(
              fmt::format("the gradient of parameter '{}' is sparse; give its embedding sparse=False", slot.name));
        }
        if (!gradient.defined() || is_finite(gradient)) continue;
        script_.refuse(fmt::format("the gradient of parameter '{}' is not finite", slot.name));
      }
    }
    std::vector<std::string> without;
    for (const auto& [name, has] : has_gradient) {
      if (!has) without.push_back(name);
    }
    if (without.size() == has_gradient.size()) refuse_without_gradients();
    if (!without.empty()) {
      warn(
          fmt::format("no gradient reaches {}, which will not be trained; give unused or frozen parameters "
                      "requires_grad=False",
                      listed(without)));
    }
    const std::vector<std::string> changed = changed_since(before);
    changed_in_training_.insert(changed.begin(), changed.end());
    for (const ScriptSlot& slot : script_.slots()) {
      if (const auto earlier = before.find(slot.name); earlier != before.end()) check_form(slot, earlier->second);
    }
  }

  void step_back(const Tensor& loss) const {
    try {
      loss.backward();
    } catch (const std::exception& error) {
      script_.refuse(
          fmt::format("the backward pass in training mode fails: {} (what a step leaves for the next, such as "
                      "running statistics, must be detached)",
                      last_words(error)));
    }
  }

  [[noreturn]] void refuse_without_gradients() const {
    script_.refuse(
        "no gradient reaches its parameters in training mode; look for no_grad, detach, .data or argmax in forward()");
  }

  void expect_finite(const Tensor& logits, const char* mode) const {
    if (is_finite(logits)) return;
    script_.refuse(fmt::format("its logits{} are not finite for samples from 0..1", mode));
  }

  /// What state is exchanged is agreed before the first round.
  void check_form(const ScriptSlot& slot, const Tensor& before) const {
    if (slot.kind == Kind::attribute) return;
    if (!slot.holds_tensor() || slot.tensor().sizes() != before.sizes() ||
        slot.tensor().scalar_type() != before.scalar_type()) {
      const auto form = [](const Tensor& tensor) {
        return fmt::format("{} [{}]", type_name(tensor.scalar_type()), fmt::join(tensor.sizes().vec(), ", "));
      };
      script_.refuse(fmt::format(
          "buffer '{}' is {} in the file and {} after a training step; register it with its final shape and type",
          slot.name, form(before), slot.holds_tensor() ? form(slot.tensor()) : "None"));
    }
  }

  void judge(const ScriptSlot& slot) {
    const bool is_changed = slot.is_written() || changed_in_training_.contains(slot.name);
    if (slot.kind == Kind::attribute) {
      if (slot.is_read && changed_in_training_.contains(slot.name)) {
        script_.refuse(
            fmt::format("training changes attribute '{}' (Tensor), which is neither a parameter nor a buffer and so is "
                        "not sent, saved or loaded; register it with register_buffer()",
                        slot.name));
      }
      if (!slot.is_assigned && slot.tensor().requires_grad()) {
        warn(fmt::format("'{}' wants gradients but is no parameter, so it is not trained; make it an nn.Parameter",
                         slot.name));
      }
      return;
    }
    if (slot.kind == Kind::parameter && slot.tensor().requires_grad()) return;
    if (!is_changed) {
      if (!survives_averaging(slot.tensor())) found_.constants.insert(slot.name);
    } else if (!is_acceptable(slot.tensor())) {
      script_.refuse(
          fmt::format("'{}', which the script changes, holds values that are not finite, or above 2^24, after a "
                      "training step; a server accepts no such update",
                      slot.name));
    }
  }

  [[nodiscard]] Snapshot snapshot() const {
    Snapshot tensors;
    for (const ScriptSlot& slot : script_.slots()) {
      if (slot.holds_tensor()) tensors[slot.name] = slot.tensor().detach().clone();
    }
    return tensors;
  }

  /// Of the tensors that could be told from their earlier values: an attribute that is never read does nothing.
  [[nodiscard]] std::vector<std::string> changed_since(const Snapshot& before) const {
    std::vector<std::string> names;
    for (const ScriptSlot& slot : script_.slots()) {
      const bool is_dense = slot.holds_tensor() && slot.tensor().layout() == c10::kStrided;
      if (slot.kind == Kind::attribute && (!slot.is_read || !is_dense)) continue;
      const auto earlier = before.find(slot.name);
      const bool is_same =
          earlier != before.end() && slot.holds_tensor() && has_same_bits(slot.tensor(), earlier->second);
      if (!is_same) names.push_back(slot.name);
    }
    return names;
  }

  Script script_;
  Tensor x_;
  Tensor labels_;
  ScriptTrial found_;
  std::set<std::string> changed_in_training_;
};

}  // namespace

ScriptTrial try_script(const std::string& file, const Task& task) { return Trial(file, task).run(); }

}  // namespace headstart::learn
