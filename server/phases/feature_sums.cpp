#include "server/phases/feature_sums.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>

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
  const std::int64_t size = static_cast<std::int64_t>(std::sqrt(2.0 * static_cast<double>(sum.size(0))));
  const Tensor rows = torch::arange(1, size + 1, torch::kLong);
  const Tensor diagonal = sum.index_select(0, (rows * (rows + 1)).div(2, "floor") - 1);
  if (diagonal.lt(0).any().item<bool>()) return "its second moments have a negative diagonal";
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

std::optional<HeadChoice> choose_head(const std::vector<JudgedHead>& heads, const learn::Metric& metric) {
  if (heads.empty()) return std::nullopt;
  std::set<std::string> raters;
  for (const auto& [name, counts] : heads.front().counts) raters.insert(name);
  for (const JudgedHead& head : heads) {
    std::erase_if(raters, [&head](const std::string& name) { return !head.counts.contains(name); });
  }
  const auto is_finite = [](const JudgedHead& head, const std::string& name) {
    return std::isfinite(head.counts.at(name).loss_sum);
  };
  std::set<std::string> odd;
  for (const JudgedHead& head : heads) {
    if (std::ranges::none_of(raters, [&](const std::string& name) { return is_finite(head, name); })) continue;
    std::ranges::copy_if(raters, std::inserter(odd, odd.end()),
                         [&](const std::string& name) { return !is_finite(head, name); });
  }
  if (odd.size() < raters.size()) {
    std::erase_if(raters, [&odd](const std::string& name) { return odd.contains(name); });
  }
  std::optional<HeadChoice> choice;
  std::vector<double> losses;
  for (std::size_t place = 0; place < heads.size(); ++place) {
    std::optional<learn::Evaluation> sum;
    for (const std::string& name : raters) {
      const learn::Evaluation& counts = heads[place].counts.at(name);
      sum ? * sum += counts : sum.emplace(counts);
    }
    if (!sum || sum->num_samples() == 0) return std::nullopt;
    losses.push_back(sum->loss());
    const bool is_better = !choice || (metric.is_accuracy() ? sum->loss() < choice->rating.loss()
                                                            : metric.is_better(*sum, choice->rating));
    if (is_better) choice = HeadChoice{place, *sum, {}};
  }
  choice->losses = std::move(losses);
  return choice;
}

FeatureSums::FeatureSums(const RunContext& context, SummedFeatures features, PhaseKind kind, WithoutSums& without)
    : context_(context),
      features_(std::move(features)),
      kind_(kind),
      projection_(packed_where_defined("projection", features_.map.projection)),
      lift_(packed_where_defined("lift", features_.map.lift)),
      without_(without) {}

net::Task<FeatureTotal> FeatureSums::moments() {
  std::vector<std::int64_t> shape{features_.size * (features_.size + 1) / 2};
  return total_of({}, std::move(shape));
}

net::Task<FeatureTotal> FeatureSums::gradient(Tensor head) {
  std::vector<std::int64_t> shape = head.sizes().vec();
  return total_of(std::move(head), std::move(shape));
}

net::Task<FeatureSums::ClosedForm> FeatureSums::closed_form() {
  const Tensor zeros = torch::zeros({features_.size, context_.data.task.num_classes}, torch::kDouble);
  ClosedForm sums;
  while (true) {
    auto asking = moments();
    sums.moments = co_await std::move(asking);
    if (!has_quorum(sums.moments)) co_return sums;
    auto asking_for_classes = gradient(zeros);
    sums.class_sums = co_await std::move(asking_for_classes);
    if (!has_quorum(sums.class_sums) || sums.class_sums.num_samples == sums.moments.num_samples) co_return sums;
    // A silo was lost in between: the others have their features still.
  }
}

net::Task<std::vector<JudgedHead>> FeatureSums::judge(std::vector<Tensor> heads) {
  std::vector<JudgedHead> all;
  for (const Tensor& head : heads) {
    FeatureTotal total;
    if (context_.options().validation == ValidationSource::federated) {
      auto asking = gradient(head);
      total = co_await std::move(asking);
    }
    auto judging = judged(head, total);
    all.push_back(co_await std::move(judging));
  }
  co_return all;
}

net::Task<JudgedHead> FeatureSums::judged(Tensor head, const FeatureTotal& gradient) const {
  JudgedHead result{head, gradient.held_out};
  if (context_.options().validation != ValidationSource::server) co_return result;
  auto rating = net::offload(context_.pool, [this, &head] {
    return learn::evaluate_logits(features_.validation_inputs.matmul(head).to(at::kFloat),
                                  context_.data.validation.y.cpu(), context_.data.task.num_classes,
                                  context_.metric().measures());
  });
  const learn::Evaluation counts = co_await std::move(rating);
  result.counts.emplace("", counts);
  co_return result;
}

bool FeatureSums::has_quorum(const FeatureTotal& total) const {
  return total.num_silos >= quorum_of(context_.options());
}

net::Task<FeatureTotal> FeatureSums::total_of(Tensor head, std::vector<std::int64_t> shape) {
  DigestedState packed;
  if (head.defined()) packed = *packed_where_defined("head", head);
  FeatureTotal total;
  auto clients = context_.roster.active();
  std::erase_if(clients, [this](const auto& client) {
    return without_.contains(client->name()) || (asked_ && !asked_->contains(client->name()));
  });
  if (!asked_) asked_.emplace();
  const auto take_from = [&](ClientSession& client) -> net::Task<bool> {
    auto adding = add(client, packed, shape, total);
    co_await std::move(adding);
    co_return true;
  };
  const auto answers = co_await context_.roster.ask<bool>(clients, take_from);
  if (context_.stop.stop_requested()) throw Error(Errc::interrupted, "stopped while sums over features were collected");
  for (const auto& answer : answers) {
    const std::string& name = answer.client->name();
    if (answer.value) continue;
    context_.leave_out({kind_}, name, answer.reason);
    without_.insert(name);
    asked_->erase(name);
  }
  co_return total;
}

net::Task<> FeatureSums::add(ClientSession& client, const DigestedState& head, const std::vector<std::int64_t>& shape,
                             FeatureTotal& total) {
  const bool is_moments = head.digest.empty();
  const plan::HeadSumSettings settings{
      .min_samples = context_.options().head.min_samples,
      .evaluates = !is_moments && context_.options().validation == ValidationSource::federated,
      .counts_scores = context_.metric().needs_scores()};
  HeadSumInputs inputs{.models = features_.models(client.name()), .projection = {}, .lift = {}};
  if (projection_) inputs.projection = DisclosurePolicy::release_tensors("projection", *projection_);
  if (lift_) inputs.lift = DisclosurePolicy::release_tensors("lift", *lift_);
  std::optional<ReleasedState> released;
  if (!is_moments) released = DisclosurePolicy::release_tensors("head", head);
  std::int64_t num_values = 1;
  for (const std::int64_t extent : shape) num_values *= extent;
  auto asking = head_sum(client, settings, std::move(inputs), std::move(released), num_values);
  HeadSum answer = co_await std::move(asking);
  // The same samples each time: sums of others do not belong together.
  const auto [known, is_new] = asked_->emplace(client.name(), answer.figures.num_samples);
  if (!is_new && known->second != answer.figures.num_samples) {
    throw Error(Errc::run_failed, fmt::format("its sum is of {} samples, and an earlier one was of {}",
                                              answer.figures.num_samples, known->second));
  }
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
  if (answer.figures.held_out && answer.figures.held_out->num_samples() > 0) {
    total.held_out.emplace(client.name(), *answer.figures.held_out);
  }
}

}  // namespace headstart::server
