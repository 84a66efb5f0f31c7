#include "server/phases/feature_sums.hpp"

#include <limits>

#include <fmt/format.h>
#include <torch/types.h>

#include "server/phases/disclosure.hpp"
#include "shared/net/offload.hpp"

namespace headstart::server {

namespace {

using learn::Tensor;

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

std::optional<DigestedState> packed_where_defined(const char* name, const Tensor& tensor) {
  if (!tensor.defined()) return std::nullopt;
  const wire::PackedState state = wire::PackedState::of_tensor(name, tensor.contiguous());
  return DigestedState{state.digest(), state};
}

}  // namespace

double JudgedHead::loss() const { return rating ? rating->loss() : std::numeric_limits<double>::infinity(); }

FeatureSums::FeatureSums(const RunContext& context, SummedFeatures features, PhaseKind kind)
    : context_(context),
      features_(std::move(features)),
      kind_(kind),
      projection_(packed_where_defined("projection", features_.map.projection)),
      lift_(packed_where_defined("lift", features_.map.lift)) {}

net::Task<FeatureTotal> FeatureSums::moments() {
  std::vector<std::int64_t> shape{features_.size * (features_.size + 1) / 2};
  return total_of({}, std::move(shape));
}

net::Task<FeatureTotal> FeatureSums::gradient(Tensor head) {
  std::vector<std::int64_t> shape = head.sizes().vec();
  return total_of(std::move(head), std::move(shape));
}

net::Task<JudgedHead> FeatureSums::judge(Tensor head) {
  if (context_.options().validation != ValidationSource::federated) co_return judged(head, {});
  auto asking = gradient(head);
  const FeatureTotal total = co_await std::move(asking);
  co_return judged(head, total);
}

JudgedHead FeatureSums::judged(Tensor head, const FeatureTotal& gradient) const {
  JudgedHead result{std::move(head), {}};
  if (context_.options().validation == ValidationSource::server) {
    result.rating = learn::evaluate_logits(features_.validation_inputs.matmul(result.head).to(at::kFloat),
                                           context_.data.validation.y.cpu(), context_.data.task.num_classes);
  } else if (context_.options().validation == ValidationSource::federated && gradient.held_out.num_samples() > 0) {
    result.rating = gradient.held_out;
  }
  return result;
}

bool FeatureSums::has_quorum(const FeatureTotal& total) const {
  return total.num_silos >= quorum_of(context_.options());
}

net::Task<FeatureTotal> FeatureSums::total_of(Tensor head, std::vector<std::int64_t> shape) {
  DigestedState packed;
  if (head.defined()) packed = *packed_where_defined("head", head);
  FeatureTotal total;
  total.held_out = learn::Evaluation::of_none(context_.data.task.num_classes);
  auto clients = context_.roster.active();
  std::erase_if(clients, [this](const auto& client) { return left_out_.contains(client->name()); });
  const auto take_from = [&](ClientSession& client) -> net::Task<bool> {
    auto adding = add(client, packed, shape, total);
    co_await std::move(adding);
    co_return true;
  };
  const auto answers = co_await context_.roster.ask<bool>(clients, take_from);
  if (context_.stop.stop_requested()) throw Error(Errc::interrupted, "stopped while sums over features were collected");
  for (const auto& answer : answers) {
    if (answer.value) continue;
    context_.leave_out({kind_}, answer.client->name(), answer.reason);
    left_out_.insert(answer.client->name());
  }
  co_return total;
}

net::Task<> FeatureSums::add(ClientSession& client, const DigestedState& head, const std::vector<std::int64_t>& shape,
                             FeatureTotal& total) {
  const bool is_moments = head.digest.empty();
  const plan::HeadSumSettings settings{
      .min_samples = context_.options().head.min_samples,
      .evaluates = !is_moments && context_.options().validation == ValidationSource::federated};
  HeadSumInputs inputs{.models = features_.models(client.name()), .projection = {}, .lift = {}};
  if (projection_) inputs.projection = DisclosurePolicy::release_tensors("projection", *projection_);
  if (lift_) inputs.lift = DisclosurePolicy::release_tensors("lift", *lift_);
  std::optional<ReleasedState> released;
  if (!is_moments) released = DisclosurePolicy::release_tensors("head", head);
  std::int64_t num_values = 1;
  for (const std::int64_t extent : shape) num_values *= extent;
  auto asking = head_sum(client, settings, std::move(inputs), std::move(released), num_values);
  HeadSum answer = co_await std::move(asking);
  const learn::Schema schema({{"sum", c10::ScalarType::Long, shape}});
  Tensor sum;
  const auto look = [&](const wire::PackedState& state) {
    sum = state.state().tensors().front().tensor.clone();
    auto violation = violation_in_sum(sum);
    if (!violation && is_moments) violation = violation_in_moments(sum, answer.figures.num_samples);
    if (violation) throw Error(Errc::run_failed, *violation);
  };
  const std::string what = is_moments ? "second moments of features" : "gradient of the head";
  auto taking = take_state(context_.intake(), client.name(), answer.upload, schema, what, look);
  co_await std::move(taking);
  total.sum = total.sum.defined() ? total.sum + sum : sum;
  total.num_samples += answer.figures.num_samples;
  ++total.num_silos;
  if (answer.figures.held_out) total.held_out += *answer.figures.held_out;
}

net::Task<JudgedHead> best_of(FeatureSums& sums, std::vector<Tensor> heads) {
  JudgedHead best;
  for (const Tensor& head : heads) {
    auto judging = sums.judge(head);
    JudgedHead judged = co_await std::move(judging);
    if (!best.head.defined() || judged.loss() < best.loss()) best = std::move(judged);
  }
  co_return best;
}

}  // namespace headstart::server
