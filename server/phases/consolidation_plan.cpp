#include "server/phases/consolidation_plan.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <torch/types.h>

#include "server/phases/class_weights.hpp"
#include "shared/base/error.hpp"

namespace headstart::server {

namespace {

std::vector<learn::Evaluation> ratings_of(const std::vector<const Candidate*>& candidates) {
  std::vector<learn::Evaluation> ratings;
  for (const Candidate* candidate : candidates) ratings.push_back(*candidate->rating);
  return ratings;
}

/// The candidate the student starts from or whose data it uses, or null for an untrained student on public data.
const Candidate* student_of(const ConsolidationOptions& options, std::vector<const Candidate*> eligible,
                            const learn::Metric& metric) {
  const bool needs_one = options.student != StudentStart::untrained || options.transfer == TransferSet::student;
  if (!needs_one) return nullptr;
  const bool must_host = options.transfer == TransferSet::student;
  const bool must_share = options.student != StudentStart::untrained;
  std::erase_if(eligible, [must_host, must_share](const Candidate* c) {
    return !c->has_federated_architecture || !c->rating || (must_host && !c->can_host) ||
           (must_share && !c->shares_with_peers);
  });
  if (eligible.empty()) {
    throw Error(
        Errc::run_failed,
        fmt::format("consolidation: no pre-trained model of the federated architecture with a rating{} to start "
                    "from{}",
                    must_share ? " and share_model: peers" : "",
                    must_host ? ", whose client is there to distil on its data" : ""));
  }
  const auto by_rank = [&metric](const Candidate* a, const Candidate* b) { return ranks_before(*a, *b, metric); };
  return options.student == StudentStart::worst ? *std::ranges::max_element(eligible, by_rank)
                                                : *std::ranges::min_element(eligible, by_rank);
}

std::string refusal_of(const ConsolidationPlan& plan) {
  std::string text = "consolidation: no client can teach";
  for (const auto& [client, reason] : plan.left_out) text += "; " + client + ": " + reason;
  return text;
}

/// Whether it is a cell of the published table.
bool is_published(const ConsolidationOptions& options) {
  const bool is_untrained_on_student_data =
      options.student == StudentStart::untrained && options.transfer == TransferSet::student;
  const bool is_by_published_weights =
      options.weighting == learn::TeacherWeighting::adaptive || options.weighting == learn::TeacherWeighting::equal;
  return !is_untrained_on_student_data && is_by_published_weights && !options.divides_label_prior &&
         options.target == TeachingTarget::teachers && options.exchange == TeachingExchange::models;
}

bool weighs_by_class(const ConsolidationOptions& options) {
  return learn::needs_ratings(options.weighting) && options.target == TeachingTarget::teachers;
}

/// Why the model does not teach; nothing where it does.
std::optional<std::string> obstacle_to_teaching(const ConsolidationOptions& options, const Candidate& candidate) {
  const bool goes_to_peers = options.transfer == TransferSet::student || options.target == TeachingTarget::joint;
  if (goes_to_peers && !candidate.shares_with_peers) {
    return "it does not share its model with other clients (share_model)";
  }
  if (!candidate.can_teach) return candidate.reason;
  if ((weighs_by_class(options) || options.divides_label_prior) && !candidate.rating) {
    return "its weights by class, or its label prior, need a rating, which nobody measured";
  }
  return std::nullopt;
}

}  // namespace

bool has_diverged(const Candidate& candidate) { return candidate.rating && std::isinf(candidate.rating->loss()); }

bool ranks_before(const Candidate& a, const Candidate& b, const learn::Metric& metric) {
  const double score_a = metric.score(*a.rating);
  const double score_b = metric.score(*b.rating);
  if (score_a != score_b) return score_a > score_b;
  if (a.rating->loss() != b.rating->loss()) return a.rating->loss() < b.rating->loss();
  return a.client < b.client;
}

ConsolidationPlan plan_consolidation(const ConsolidationOptions& options, std::vector<Candidate> candidates,
                                     std::int64_t num_classes, const learn::Metric& metric) {
  std::ranges::sort(candidates, {}, &Candidate::client);
  ConsolidationPlan plan;
  std::vector<const Candidate*> all;
  for (const Candidate& candidate : candidates) {
    if (has_diverged(candidate)) {
      plan.left_out.emplace_back(candidate.client, "its model diverged: its loss on the validation data is infinite");
    } else {
      all.push_back(&candidate);
    }
  }
  const Candidate* student = student_of(options, all, metric);
  const bool on_student_data = options.transfer == TransferSet::student;
  if (on_student_data) plan.place = student->client;
  if (options.student != StudentStart::untrained) plan.student = student->client;
  plan.copy_teaches = plan.student && !on_student_data;
  plan.is_published = is_published(options);

  std::vector<const Candidate*> others;
  for (const Candidate* candidate : all) {
    if (candidate == student) continue;
    if (auto obstacle = obstacle_to_teaching(options, *candidate)) {
      plan.left_out.emplace_back(candidate->client, std::move(*obstacle));
    } else {
      others.push_back(candidate);
    }
  }
  for (const Candidate* candidate : others) plan.teachers.push_back(candidate->client);
  // A lifted head needs no other model than the student's.
  if (others.empty() && options.target != TeachingTarget::lifted) throw Error(Errc::run_failed, refusal_of(plan));

  std::vector<const Candidate*> teaching = others;
  if (plan.copy_teaches) teaching.push_back(student);
  if (!weighs_by_class(options)) {
    plan.weights = learn::equal_weights(static_cast<std::int64_t>(teaching.size()), num_classes);
    return plan;
  }
  const std::optional<learn::Evaluation> of_student = plan.student ? student->rating : std::nullopt;
  plan.weights = class_weights(ratings_of(teaching), ratings_of(others), of_student, options.weighting);
  return plan;
}

}  // namespace headstart::server
