#include "server/phases/head_from_sums.hpp"

#include <limits>
#include <set>

#include <fmt/format.h>
#include <torch/types.h>

#include "server/phases/disclosure.hpp"
#include "server/sessions/client_tasks.hpp"
#include "shared/learn/train/head_sums.hpp"
#include "shared/net/offload.hpp"

namespace headstart::server {

namespace {

using learn::Tensor;

/// What the silos' sums of one step make together.
struct Total {
  Tensor sum;  ///< int64; undefined: nobody answered.
  std::int64_t num_samples = 0;
  std::int64_t num_silos = 0;
  learn::Evaluation held_out;
};

/// Why no sum of fixed-point numbers can be added safely, in a sentence.
std::optional<std::string> violation_in_sum(const Tensor& sum) {
  // Not abs(), which leaves the least number negative.
  const bool is_within = sum.le(learn::max_fixed_sum).logical_and(sum.ge(-learn::max_fixed_sum)).all().item<bool>();
  if (is_within) return std::nullopt;
  return fmt::format("its sum has a value beyond {:.0f} in fixed point", static_cast<double>(learn::max_fixed_sum));
}

/// Of the second moments: the last is that of the bias, the number of samples.
std::optional<std::string> violation_in_moments(const Tensor& sum, std::int64_t num_samples) {
  const std::int64_t said = sum[sum.size(0) - 1].item<std::int64_t>();
  const std::int64_t expected = num_samples << learn::sum_fraction_bits;
  if (said == expected) return std::nullopt;
  return fmt::format("its second moments are of {} samples, and it says {}",
                     static_cast<double>(said) / static_cast<double>(std::int64_t{1} << learn::sum_fraction_bits),
                     num_samples);
}

/// The head on the way, and what is known of it.
struct Point {
  Tensor head;
  double loss = std::numeric_limits<double>::infinity();
  double accuracy = 0;
  std::int64_t step = 0;
};

class HeadFitting {
 public:
  HeadFitting(const RunContext& context, DigestedState model) : context_(context), model_(std::move(model)) {}

  net::Task<FittedHead> run() {
    context_.observer.on_phase({PhaseKind::head_fitting}, context_.roster.active().size());
    auto preparing = net::offload(context_.pool, [this] { prepare(); });
    co_await std::move(preparing);
    const std::int64_t size = own_head_.size(0);
    auto asking = total_of({}, {size * (size + 1) / 2});
    const Total moments = co_await std::move(asking);
    if (moments.num_silos < quorum_of(context_.options())) co_return unchanged(moments.num_silos);
    auto fitting = fit(moments);
    co_return co_await std::move(fitting);
  }

 private:
  [[nodiscard]] const HeadOptions& options() const { return context_.options().head; }
  [[nodiscard]] ValidationSource source() const { return context_.options().validation; }

  /// What the server itself computes of the model. On the pool.
  void prepare() {
    const auto network = context_.make_global_model();
    network->load(model_.state.state());
    own_head_ = learn::head_of(*network);
    if (source() == ValidationSource::server) {
      validation_ = learn::head_inputs(*network, context_.data.validation.x.to(context_.device));
    } else {
      (void)learn::head_inputs(*network, at::zeros(sample_shape()).to(context_.device));
    }
  }
  /// Of one sample that is nobody's: a model that shows no features is refused before silos are asked.
  [[nodiscard]] std::vector<std::int64_t> sample_shape() const {
    std::vector<std::int64_t> shape = context_.data.task.shape;
    shape.insert(shape.begin(), 1);
    return shape;
  }

  net::Task<FittedHead> fit(const Total& moments) {
    learn::HeadFit fit(learn::from_fixed_point(moments.sum), moments.num_samples, options().damping, own_head_);
    Point best;
    nlohmann::json losses = nlohmann::json::array();
    const bool is_judged = source() != ValidationSource::none;
    for (std::int64_t step = 0;; ++step) {
      Point point{.head = fit.point(), .step = step};
      const bool is_last = step == options().steps;
      if (is_last && source() != ValidationSource::federated) {
        judge(point, Total{});
        take(point, is_judged, best, losses);
        break;
      }
      auto asking = total_of(point.head, {point.head.size(0), point.head.size(1)});
      const Total gradient = co_await std::move(asking);
      judge(point, gradient);
      take(point, is_judged, best, losses);
      if (is_last) break;
      if (gradient.num_silos < quorum_of(context_.options())) break;  // what there is counts
      fit.step(learn::from_fixed_point(gradient.sum), gradient.num_samples);
    }
    auto finishing = net::offload(context_.pool, [this, &best] {
      const auto network = context_.make_global_model();
      network->load(model_.state.state());
      if (best.step > 0) learn::set_head(*network, best.head);
      return wire::PackedState(network->state());
    });
    wire::PackedState state = co_await std::move(finishing);
    co_return FittedHead{std::move(state), report(moments, best, std::move(losses))};
  }

  /// By the validation source; without one the loss stays unknown.
  void judge(Point& point, const Total& gradient) const {
    std::optional<learn::Evaluation> evaluation;
    if (source() == ValidationSource::server) {
      evaluation = learn::evaluate_logits(validation_.matmul(point.head).to(at::kFloat),
                                          context_.data.validation.y.cpu(), context_.data.task.num_classes);
    } else if (source() == ValidationSource::federated && gradient.held_out.num_samples() > 0) {
      evaluation = gradient.held_out;
    }
    if (!evaluation) return;
    point.loss = evaluation->loss();
    point.accuracy = evaluation->accuracy();
  }

  static void take(const Point& point, bool is_judged, Point& best, nlohmann::json& losses) {
    if (is_judged) losses.push_back(point.loss);
    if (!is_judged || point.loss < best.loss || !best.head.defined()) best = point;
  }

  [[nodiscard]] nlohmann::json report(const Total& moments, const Point& best, nlohmann::json losses) const {
    nlohmann::json report = {{"steps", options().steps},
                             {"kept_step", best.step},
                             {"silos", moments.num_silos},
                             {"samples", moments.num_samples}};
    if (source() == ValidationSource::none) return report;
    report["validation_losses"] = std::move(losses);
    report["validation_accuracy"] = best.accuracy;
    return report;
  }

  [[nodiscard]] FittedHead unchanged(std::int64_t num_silos) const {
    const std::string why =
        fmt::format("{} silos sent their sums, and {} are needed", num_silos, quorum_of(context_.options()));
    context_.observer.on_note("the head of the start stays as it is: " + why);
    return {model_.state, {{"kept_step", 0}, {"silos", num_silos}, {"reason", why}}};
  }

  /// Of all silos that answer: the gradient at `head`, or where that is undefined the second moments.
  net::Task<Total> total_of(Tensor head, std::vector<std::int64_t> shape) {
    DigestedState packed;
    if (head.defined()) {
      const wire::PackedState state = wire::PackedState::of_tensor("head", head);
      packed = {state.digest(), state};
    }
    Total total;
    total.held_out = learn::Evaluation::of_none(context_.data.task.num_classes);
    auto clients = context_.roster.active();
    std::erase_if(clients, [this](const auto& client) { return left_out_.contains(client->name()); });
    const auto take_from = [&](ClientSession& client) -> net::Task<bool> {
      auto adding = add(client, packed, shape, total);
      co_await std::move(adding);
      co_return true;
    };
    const auto answers = co_await context_.roster.ask<bool>(clients, take_from);
    if (context_.stop.stop_requested()) throw Error(Errc::interrupted, "stopped while the head was fitted");
    for (const auto& answer : answers) {
      if (answer.value) continue;
      context_.leave_out({PhaseKind::head_fitting}, answer.client->name(), answer.reason);
      left_out_.insert(answer.client->name());
    }
    co_return total;
  }

  net::Task<> add(ClientSession& client, const DigestedState& head, const std::vector<std::int64_t>& shape,
                  Total& total) {
    const plan::HeadSumSettings settings{.min_samples = options().min_samples,
                                         .evaluates = !head.digest.empty() && source() == ValidationSource::federated};
    std::optional<ReleasedState> released;
    if (!head.digest.empty()) released = DisclosurePolicy::release_tensors("head", head);
    std::int64_t num_values = 1;
    for (const std::int64_t extent : shape) num_values *= extent;
    auto asking = head_sum(client, settings, DisclosurePolicy::release_model("start model", model_),
                           std::move(released), num_values);
    HeadSum answer = co_await std::move(asking);
    const learn::Schema schema({{"sum", c10::ScalarType::Long, shape}});
    Tensor sum;
    const auto look = [&](const wire::PackedState& state) {
      sum = state.state().tensors().front().tensor.clone();
      auto violation = violation_in_sum(sum);
      if (!violation && head.digest.empty()) violation = violation_in_moments(sum, answer.figures.num_samples);
      if (violation) throw Error(Errc::run_failed, *violation);
    };
    const std::string what = head.digest.empty() ? "second moments of features" : "gradient of the head";
    auto taking = take_state(context_.intake(), client.name(), answer.upload, schema, what, look);
    co_await std::move(taking);
    total.sum = total.sum.defined() ? total.sum + sum : sum;
    total.num_samples += answer.figures.num_samples;
    ++total.num_silos;
    if (answer.figures.held_out) total.held_out += *answer.figures.held_out;
  }

  const RunContext& context_;
  DigestedState model_;
  std::set<std::string> left_out_;  ///< Silos that are not asked any more.
  Tensor own_head_;
  Tensor validation_;  ///< Inputs of the head for the server's validation samples.
};

}  // namespace

net::Task<FittedHead> with_head_from_sums(const RunContext& context, wire::PackedState state) {
  auto hashing = net::offload(context.pool, [&state] { return state.digest(); });
  const std::string digest = co_await std::move(hashing);
  HeadFitting fitting(context, {digest, std::move(state)});
  auto running = fitting.run();
  co_return co_await std::move(running);
}

}  // namespace headstart::server
