#include "shared/worker_process/worker_model.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/types.h>

#include "shared/base/error.hpp"

namespace headstart::worker_process {

namespace {

using learn::Tensor;

/// Samples in a request at most: with fewer the model would travel more often than they.
constexpr std::int64_t largest_request = 8192;

class WorkerModel final : public learn::StatedNetwork {
 public:
  WorkerModel(std::shared_ptr<ModelWorker> worker, const learn::StatedModel& stated)
      : StatedNetwork(stated), worker_(std::move(worker)) {}

  Tensor forward(const Tensor& x) override;
  [[nodiscard]] std::int64_t batch_size_for(std::int64_t /*asked*/) const override { return largest_request; }

  [[nodiscard]] Tensor logits(const Tensor& x, const Seed* training_seed) const {
    return worker_->logits(block(), x, training_seed);
  }
  /// By parameter, in their order. Takes the buffers over.
  torch::autograd::variable_list backward(const Tensor& x, const Tensor& gradient, const Seed& seed) {
    const learn::StateDict result = worker_->backward(block(), stated_schema(), x, gradient, seed);
    torch::autograd::variable_list gradients;
    for (const std::string& name : parameter_names()) gradients.push_back(result.at(name));
    const at::NoGradGuard no_grad;
    for (const learn::TensorSpec& spec : stated_schema().tensors()) {
      if (stated_schema().role_of(spec) != learn::Role::parameter) block().at(spec.name).copy_(result.at(spec.name));
    }
    return gradients;
  }

 private:
  std::shared_ptr<ModelWorker> worker_;
  std::uint64_t num_passes_ = 0;  ///< In training mode: each draws from a stream of its own.
};

/// A forward pass in the process, whose backward pass is there, too.
struct RemotePass : torch::autograd::Function<RemotePass> {
  static Tensor forward(torch::autograd::AutogradContext* context, WorkerModel* model, const Tensor& x,
                        std::uint64_t seed, at::TensorList /*parameters*/) {
    context->save_for_backward({x});
    context->saved_data["model"] = reinterpret_cast<std::int64_t>(model);
    context->saved_data["seed"] = static_cast<std::int64_t>(seed);
    const Seed stream(seed);
    return model->logits(x, &stream);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    auto* model = reinterpret_cast<WorkerModel*>(context->saved_data["model"].toInt());
    const Seed seed(static_cast<std::uint64_t>(context->saved_data["seed"].toInt()));
    torch::autograd::variable_list result(3);  // of the model, the samples, the seed: none
    for (Tensor& gradient : model->backward(context->get_saved_variables().front(), gradients.front(), seed)) {
      result.push_back(std::move(gradient));
    }
    return result;
  }
};

Tensor WorkerModel::forward(const Tensor& x) {
  if (!is_training() || !at::GradMode::is_enabled()) return logits(x, nullptr);
  if (!worker_->gives_gradients()) {
    throw Error(Errc::usage,
                "the server is to distil the model, and its worker gives logits alone: let it do the task "
                "'backward', too, or distil at a silo (consolidation.transfer=student)");
  }
  const Seed seed = Seed(0).child("worker").child(num_passes_++);
  const std::vector<Tensor> trained = parameters();
  return RemotePass::apply(this, x, seed.value(), at::TensorList(trained));
}

void require(const learn::Schema& found, const learn::Schema& expected) {
  if (const auto difference = found.difference_from(expected)) {
    throw Error(Errc::data, fmt::format("the worker's model is not that of model.name: {}", *difference));
  }
}

}  // namespace

ModelWorker::ModelWorker(WorkerCommand command) : link_(std::move(command), "logits") {}

void ModelWorker::take_up(const std::string& terms, const learn::Schema& schema, std::int64_t num_classes) {
  num_classes_ = num_classes;
  const nlohmann::json header = {
      {"type", "join"}, {"client", ""}, {"terms", nlohmann::json::parse(terms)}, {"seed", 0}};
  const std::lock_guard guard(mutex_);
  link_.join(header, [&schema](std::istream&, const FrameHead& head) {
    if (head.num_body_bytes > 0) throw Error(Errc::protocol, "a 'joined' with tensors");
    require(schema_in(head.header, "model"), schema);
  });
}

bool ModelWorker::gives_gradients() const {
  const std::lock_guard guard(mutex_);
  return std::ranges::find(link_.kinds(), "backward") != link_.kinds().end();
}

Tensor ModelWorker::logits(const learn::StateDict& model, const Tensor& x, const Seed* training_seed) {
  const wire::PackedState packed = wire::PackedState::of(model);
  const wire::PackedState samples = wire::PackedState::of_tensor("samples", x.to(at::kCPU, at::kFloat));
  WorkerRequest request{.kind = "logits", .inputs = {{"model", "", &packed}, {"samples", "", &samples}}};
  if (training_seed != nullptr) request.settings = {{"training", true}, {"seed", training_seed->value()}};
  Tensor result;
  const std::lock_guard guard(mutex_);
  link_.ask(request,
            [&](std::istream& in, const FrameHead& head) {
              const learn::Schema expected({{"logits", c10::ScalarType::Float, {x.size(0), num_classes_}}});
              result = read_frame_state(in, head, expected).state().at("logits");
            },
            {}, {});
  return result;
}

learn::StateDict ModelWorker::backward(const learn::StateDict& model, const learn::Schema& schema, const Tensor& x,
                                       const Tensor& gradient, const Seed& seed) {
  const wire::PackedState packed = wire::PackedState::of(model);
  const wire::PackedState samples = wire::PackedState::of_tensor("samples", x.to(at::kCPU, at::kFloat));
  const wire::PackedState of_logits = wire::PackedState::of_tensor("gradient", gradient.to(at::kCPU, at::kFloat));
  const WorkerRequest request{
      .kind = "backward",
      .settings = {{"training", true}, {"seed", seed.value()}},
      .inputs = {{"model", "", &packed}, {"samples", "", &samples}, {"gradient", "", &of_logits}}};
  wire::PackedState result;
  const std::lock_guard guard(mutex_);
  link_.ask(request, [&](std::istream& in, const FrameHead& head) { result = read_frame_state(in, head, schema); }, {},
            {});
  return result.state();
}

std::unique_ptr<learn::Model> ModelWorker::make(const learn::StatedModel& stated) {
  return std::make_unique<WorkerModel>(shared_from_this(), stated);
}

}  // namespace headstart::worker_process
