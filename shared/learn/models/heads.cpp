#include "shared/learn/models/heads.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "shared/base/error.hpp"

namespace headstart::learn {

namespace {

/// Takes all parameters but those of one head out of the graph, for its lifetime.
class FrozenBackbone {
 public:
  FrozenBackbone(Model& model, const std::string& head_prefix) {
    for (const auto& [name, tensor] : model.named_state()) {
      if (!tensor.requires_grad() || name.starts_with(head_prefix)) continue;
      frozen_.push_back(tensor);
      frozen_.back().set_requires_grad(false);
    }
  }
  ~FrozenBackbone() {
    for (const Tensor& tensor : frozen_) tensor.set_requires_grad(true);
  }
  FrozenBackbone(const FrozenBackbone&) = delete;
  FrozenBackbone& operator=(const FrozenBackbone&) = delete;

 private:
  std::vector<Tensor> frozen_;
};

class HeadView final : public Model {
 public:
  HeadView(Model& model, Head head, Trains trains) : model_(model), head_(head), trains_(trains) {
    if (head == Head::second && model.num_heads() < 2) {
      throw Error(Errc::usage, "the model has no second head: set model.second_head, or give a script one");
    }
    if (trains == Trains::head) frozen_ = std::make_unique<FrozenBackbone>(model, model.head_prefix(head));
  }

  Tensor forward(const Tensor& x) override {
    return head_ == Head::first ? model_.forward(x) : model_.forward_heads(x)[1];
  }
  std::vector<Tensor> parameters() override {
    std::vector<Tensor> trained = model_.parameters();
    std::erase_if(trained, [](const Tensor& parameter) { return !parameter.requires_grad(); });
    return trained;
  }
  std::vector<NamedTensor> named_state() override { return model_.named_state(); }
  void set_training(bool training) override { model_.set_training(training && trains_ == Trains::all); }
  void to(c10::Device device) override { model_.to(device); }
  [[nodiscard]] bool draws_globally() const override { return model_.draws_globally(); }
  [[nodiscard]] std::int64_t num_heads() const override { return model_.num_heads(); }
  std::vector<Tensor> forward_heads(const Tensor& x) override { return model_.forward_heads(x); }
  Tensor features(const Tensor& x) override { return model_.features(x); }
  [[nodiscard]] bool shows_features() const override { return model_.shows_features(); }
  [[nodiscard]] std::string head_prefix(Head head) const override { return model_.head_prefix(head); }
  [[nodiscard]] StateDict complete(const StateDict& state) override { return model_.complete(state); }
  [[nodiscard]] StateDict exchanged_part(const StateDict& state) override { return model_.exchanged_part(state); }

 private:
  Model& model_;
  Head head_;
  Trains trains_;
  std::unique_ptr<FrozenBackbone> frozen_;
};

}  // namespace

std::unique_ptr<Model> view_of_head(Model& model, Head head, Trains trains) {
  return std::make_unique<HeadView>(model, head, trains);
}

}  // namespace headstart::learn
