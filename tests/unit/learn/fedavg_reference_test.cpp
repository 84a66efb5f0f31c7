// Three rounds of FedAvg against PyTorch, from the inputs that both programs read.
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <torch/types.h>

#include "shared/base/files.hpp"
#include "shared/learn/aggregate/weighted_mean.hpp"
#include "shared/learn/train/train.hpp"

namespace headstart::learn {

namespace {

Tensor order_of(const nlohmann::json& indices) {
  return torch::tensor(indices.get<std::vector<std::int64_t>>(), torch::kLong);
}

StateDict state_of(const nlohmann::json& tensors, c10::ScalarType floating) {
  std::vector<NamedTensor> state;
  for (const auto& [name, tensor] : tensors.items()) {
    const auto type = name.ends_with("num_batches_tracked") ? torch::kLong : floating;
    const auto values = tensor["values"].get<std::vector<double>>();
    state.push_back(
        {name,
         torch::tensor(values, torch::kDouble).reshape(tensor["shape"].get<std::vector<std::int64_t>>()).to(type)});
  }
  return StateDict(std::move(state));
}

struct Federation {
  std::unique_ptr<Model> model;
  std::vector<Samples> clients;
  TrainOptions options;
};

Federation federation_of(const nlohmann::json& reference, c10::ScalarType floating) {
  const auto number = [&](const char* key) { return reference[key].get<std::int64_t>(); };
  const Task task{{number("channels"), number("side"), number("side")}, number("classes")};
  const ModelSpec spec{.channels = reference["filters"].get<std::vector<std::int64_t>>(),
                       .kernel = number("kernel"),
                       .hidden = number("hidden"),
                       .norm = Norm::batch};
  Federation federation{make_model(spec, task, Seed(1)), {}, {}};
  federation.model->to_type(floating);
  for (const auto& client : reference["clients"]) {
    const Tensor x = torch::tensor(client["x"].get<std::vector<double>>(), torch::kDouble).to(floating);
    federation.clients.push_back({x.reshape({-1, task.shape[0], task.shape[1], task.shape[2]}), order_of(client["y"])});
  }
  federation.options.batch_size = number("batch_size");
  federation.options.optimizer = {.kind = OptimizerKind::sgd,
                                  .lr = reference["lr"].get<double>(),
                                  .momentum = reference["momentum"].get<double>(),
                                  .weight_decay = reference["weight_decay"].get<double>()};
  return federation;
}

StateDict round(Federation& federation, const StateDict& start, const nlohmann::json& orders) {
  const auto& clients = federation.clients;
  WeightedMean aggregator(start.schema());
  for (std::size_t i = 0; i < clients.size(); ++i) {
    std::vector<Tensor> client_orders;
    for (const auto& order : orders[i]) client_orders.push_back(order_of(order));
    federation.model->load(start);
    train(*federation.model, clients[i], federation.options, client_orders);
    REQUIRE_FALSE(add_update(aggregator, federation.model->state(), clients[i].size()).has_value());
  }
  return std::move(aggregator).report();
}

void check_near(const StateDict& got, const StateDict& expected, double tolerance) {
  REQUIRE_FALSE(got.schema().difference_from(expected.schema()).has_value());
  for (const auto& [name, tensor] : expected.tensors()) {
    CAPTURE(name);
    const Tensor difference = (got.at(name).to(torch::kDouble) - tensor.to(torch::kDouble)).abs();
    CHECK(difference.max().item<double>() <= (tensor.is_floating_point() ? tolerance : 0));
  }
}

void check_against_pytorch(const char* results, c10::ScalarType floating, double tolerance) {
  const nlohmann::json reference = read_json("tests/golden/fedavg/reference.json");
  Federation federation = federation_of(reference, floating);
  StateDict state = state_of(reference["start"], floating);
  for (std::size_t r = 0; r < reference["orders"].size(); ++r) {
    CAPTURE(r);
    state = round(federation, state, reference["orders"][r]);
    check_near(state, state_of(reference[results][r], floating), tolerance);
  }
}

}  // namespace

TEST_CASE("three rounds of FedAvg agree with PyTorch in float64") {
  check_against_pytorch("float64", torch::kDouble, 1e-9);
}

TEST_CASE("three rounds of FedAvg agree with PyTorch in float32") {
  check_against_pytorch("float32", torch::kFloat, 1e-5);
}

}  // namespace headstart::learn
