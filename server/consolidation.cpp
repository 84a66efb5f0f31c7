#include "server/consolidation.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <torch/torch.h>

#include "server/class_weights.hpp"
#include "shared/base/error.hpp"

namespace headstart::server {

void declare_fields(Fields& fields, const std::string& prefix, ConsolidationOptions& options) {
  fields.choice(
      prefix + ".student", options.student,
      "What the student starts from: the best or the worst pre-trained model by the validation source, or the "
      "untrained global model.",
      Choices<StudentStart>(student_words));
  fields.choice(prefix + ".weights", options.weighting,
                "Teacher weights: by class accuracy (adaptive), by class precision, or equal.",
                Choices<learn::TeacherWeighting>(learn::weighting_words));
  fields.choice(prefix + ".transfer", options.transfer,
                "Where distillation happens: on the large or the small public unlabeled set at the server, or on the "
                "student's own data at its client, which is then sent the other clients' models.",
                Choices<TransferSet>(transfer_words));
  fields.choice(prefix + ".keep", options.keep, "State kept: of the last epoch, or the best by the validation source.",
                Choices<KeptState>(kept_words));
  fields.flag(prefix + ".gate", options.gate,
              "Start from the seed only where the validation source rates it above the best local model.");
  fields.flag(prefix + ".divide_label_prior", options.divides_label_prior,
              "Divide out of each teacher's probabilities how often it answers with a class on validation data; on "
              "public sets.");
  fields.choice(prefix + ".tune", options.tune,
                "Choose temperature and alpha by the validation source: none (they are as set), auto (a search with "
                "some 7 consolidations in place of one), or grid (all settings of consolidation.grid).",
                Choices<SettingChoice>(choice_words));
  learn::declare_fields(fields, prefix + ".grid", options.grid);
}

namespace {

std::vector<learn::Evaluation> ratings_of(const std::vector<const Candidate*>& candidates) {
  std::vector<learn::Evaluation> ratings;
  for (const Candidate* candidate : candidates) ratings.push_back(*candidate->rating);
  return ratings;
}

/// The candidate the student starts from or whose data it uses, or null for an untrained student on public data.
const Candidate* student_of(const ConsolidationOptions& options, std::vector<const Candidate*> eligible) {
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
  const auto by_rank = [](const Candidate* a, const Candidate* b) { return ranks_before(*a, *b); };
  return options.student == StudentStart::worst ? *std::ranges::max_element(eligible, by_rank)
                                                : *std::ranges::min_element(eligible, by_rank);
}

std::string refusal_of(const ConsolidationPlan& plan) {
  std::string text = "consolidation: no client can teach";
  for (const auto& [client, reason] : plan.left_out) text += "; " + client + ": " + reason;
  return text;
}

}  // namespace

std::unique_ptr<learn::SettingSearch> search_of(const ConsolidationOptions& options, std::int64_t epochs) {
  const bool has_labels = options.transfer == TransferSet::student;
  switch (options.tune) {
    case SettingChoice::automatic:
      return learn::automatic_search(options.grid, epochs, has_labels);
    case SettingChoice::grid:
      return learn::grid_search(options.grid, epochs, has_labels);
    case SettingChoice::as_set:
      break;
  }
  return nullptr;
}

bool has_diverged(const Candidate& candidate) { return candidate.rating && std::isinf(candidate.rating->loss()); }

bool ranks_before(const Candidate& a, const Candidate& b) {
  if (a.rating->accuracy() != b.rating->accuracy()) return a.rating->accuracy() > b.rating->accuracy();
  if (a.rating->loss() != b.rating->loss()) return a.rating->loss() < b.rating->loss();
  return a.client < b.client;
}

ConsolidationPlan plan_consolidation(const ConsolidationOptions& options, std::vector<Candidate> candidates,
                                     std::int64_t num_classes) {
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
  const Candidate* student = student_of(options, all);
  const bool on_student_data = options.transfer == TransferSet::student;
  const bool is_equal = options.weighting == learn::TeacherWeighting::equal;

  if (on_student_data) plan.place = student->client;
  if (options.student != StudentStart::untrained) plan.student = student->client;
  plan.copy_teaches = plan.student && !on_student_data;
  plan.is_published = !(options.student == StudentStart::untrained && on_student_data) &&
                      options.weighting != learn::TeacherWeighting::precision && !options.divides_label_prior;

  std::vector<const Candidate*> others;
  for (const Candidate* candidate : all) {
    if (candidate == student) continue;
    if (on_student_data && !candidate->shares_with_peers) {
      plan.left_out.emplace_back(candidate->client, "it does not share its model with other clients (share_model)");
    } else if (!candidate->can_teach) {
      plan.left_out.emplace_back(candidate->client, candidate->obstacle);
    } else if ((!is_equal || options.divides_label_prior) && !candidate->rating) {
      plan.left_out.emplace_back(candidate->client,
                                 "its weights by class, or its label prior, need a rating, which nobody measured");
    } else {
      others.push_back(candidate);
    }
  }
  for (const Candidate* candidate : others) plan.teachers.push_back(candidate->client);
  if (others.empty()) throw Error(Errc::run_failed, refusal_of(plan));

  std::vector<const Candidate*> teaching = others;
  if (plan.copy_teaches) teaching.push_back(student);
  if (is_equal) {
    plan.weights = learn::equal_weights(static_cast<std::int64_t>(teaching.size()), num_classes);
    return plan;
  }
  const std::optional<learn::Evaluation> of_student = plan.student ? student->rating : std::nullopt;
  plan.weights = class_weights(ratings_of(teaching), ratings_of(others), of_student, options.weighting);
  return plan;
}

}  // namespace headstart::server
