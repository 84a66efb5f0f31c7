// Models that are known by their tensors alone: averaged, sent and kept here, and computed elsewhere.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "shared/learn/models/model.hpp"

namespace headstart::learn {

struct StatedModel {
  StateDict state;  ///< What round 1 starts from.
  Schema schema;    ///< With the roles of its tensors.
  /// Makes a model that can compute; empty: none here can.
  std::function<std::unique_ptr<Model>(const StatedModel&)> make;
};

/// Throws Error(usage) where the spec's file was not read.
const StatedModel& stated_of(const ModelSpec& spec);

/// By `make` where it is set; else a model that throws Error(usage) where it is to compute.
std::unique_ptr<Model> make_stated(const StatedModel& stated);

/// The tensors of such a model, on the CPU and in one block of memory, so that they can be sent as they are.
class StatedNetwork : public Model {
 public:
  explicit StatedNetwork(const StatedModel& stated);

  /// Throws Error(usage).
  Tensor forward(const Tensor& x) override;
  std::vector<Tensor> parameters() override { return parameters_; }
  std::vector<NamedTensor> named_state() override { return state_.tensors(); }
  void set_training(bool training) override { is_training_ = training; }
  /// Throws Error(usage) for another device than the CPU.
  void to(c10::Device device) override;

 protected:
  [[nodiscard]] const StateDict& block() const { return state_; }
  [[nodiscard]] const Schema& stated_schema() const { return schema_; }
  [[nodiscard]] bool is_training() const { return is_training_; }
  /// parameters() by name, in their order.
  [[nodiscard]] const std::vector<std::string>& parameter_names() const { return names_; }

 private:
  Schema schema_;
  StateDict state_;
  std::vector<Tensor> parameters_;
  std::vector<std::string> names_;
  bool is_training_ = false;
};

}  // namespace headstart::learn
