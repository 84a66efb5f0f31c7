#include "server/phases/run_terms.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/metrics/metric.hpp"

namespace headstart::server {

namespace {

/// The recipients among other silos: what needs their consent.
std::string wanted_of_share_model(const FederationOptions& options) {
  std::string text;
  for (const nlohmann::json& recipient : recipients_of_local_models(options)) {
    const auto words = recipient.get<std::string>();
    if (words.find("shared with peers") == std::string::npos) continue;
    text += (text.empty() ? "" : "; ") + words;
  }
  return text;
}

std::int64_t examples_limit(std::int64_t num_training) {
  constexpr std::int64_t without_knowledge = 10'000'000;
  // Silos may bring data of their own, of which the server's manifest knows nothing.
  return std::max(num_training, without_knowledge);
}

/// Throws Error(usage) where the classes do not have it, or the server's validation samples do not show it.
learn::Metric validation_metric(const FederationOptions& options, const plan::Terms& terms, const CentralData& data) {
  learn::Metric metric;
  try {
    metric = learn::metric_of(options.metric, terms.samples.classes);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("validation.metric: {}", error.what()));
  }
  const bool rates_here = options.validation == ValidationSource::server && data.validation.is_labeled();
  if (rates_here && metric.of_class && !data.validation.y.eq(*metric.of_class).any().item<bool>()) {
    throw Error(Errc::usage,
                fmt::format("validation.metric {}: the server's validation set has no sample of class '{}'",
                            options.metric, terms.samples.classes[static_cast<std::size_t>(*metric.of_class)]));
  }
  if (options.counts_scores && std::ssize(terms.samples.classes) > learn::max_scored_classes) {
    throw Error(Errc::usage, fmt::format("evaluation.scores: scores are counted for at most {} classes; there are {}",
                                         learn::max_scored_classes, terms.samples.classes.size()));
  }
  return metric;
}

}  // namespace

plan::Terms run_terms(const ServerConfig& config, const CentralData& data) {
  plan::Terms terms = config.terms;
  terms.task = data.task;
  terms.samples = data.samples;
  if (terms.samples.classes.empty()) terms.samples.classes = learn::numbered_classes(data.task.num_classes);
  terms.architecture = terms.model.architecture();
  terms.plan.rounds = config.federation.num_rounds;
  terms.plan.start = word_of(Choices<StartModel>(start_words), config.federation.start);
  if (config.federation.start == StartModel::automatic) {
    terms.plan.start += fmt::format(": the best of {}", fmt::join(config.federation.candidates, ", "));
  }
  if (config.federation.head.start == StartHead::sums) terms.plan.start += ", head from sums over the silos' samples";
  if (config.federation.head.rounds == StartHead::sums) terms.plan.start += "; each round's head from such sums";
  terms.plan.share_model = wanted_of_share_model(config.federation);
  terms.metric = validation_metric(config.federation, terms, data).text();
  if (terms.max_examples == 0) terms.max_examples = examples_limit(data.num_training);
  plan::require_readable(terms);
  return terms;
}

std::vector<std::string_view> tasks_of(const FederationOptions& options, const CentralData& data) {
  std::vector<std::string_view> tasks;
  const auto add = [&tasks](std::string_view kind, bool is_asked_for) {
    if (is_asked_for) tasks.push_back(kind);
  };
  add(plan::task::describe, data.awaits_statistics);
  const bool is_random = !pretrains(options);
  const bool is_kd = may_start_from(options, StartModel::kd);
  const ConsolidationOptions& kd = options.consolidation;
  const bool has_public_set = data.transfer.size() > 0;
  add(plan::task::pretrain, !is_random);
  add(plan::task::exchange, !is_random);
  add(plan::task::train, options.num_rounds > 0);
  add(plan::task::evaluate, options.federated_evaluation || ((!is_random || options.start == StartModel::automatic) &&
                                                             options.validation == ValidationSource::federated));
  // Where too few silos consent to student data, a public set may take its place.
  add(plan::task::logits, has_public_set && teaches_by_models(options));
  add(plan::task::answers, is_kd && kd.exchange == TeachingExchange::answers);
  add(plan::task::densities, teaches_by_models(options) && kd.weighting == learn::TeacherWeighting::experts);
  add(plan::task::distill, is_kd && options.consolidation.transfer == TransferSet::student);
  add(plan::task::head_sum, fits_heads(options) || (is_kd && kd.target != TeachingTarget::teachers));
  add(plan::task::statistics, may_start_from(options, StartModel::average) && !has_public_set);
  return tasks;
}

nlohmann::json recipients_of_local_models(const FederationOptions& options) {
  nlohmann::json recipients = nlohmann::json::array();
  if (!pretrains(options)) return recipients;
  const bool is_kd = may_start_from(options, StartModel::kd);
  const ConsolidationOptions& kd = options.consolidation;
  const bool needs_all = may_start_from(options, StartModel::average) || teaches_by_models(options);
  if (needs_all) {
    recipients.push_back("the server, but for those of silos that say share_model: answers");
  } else if (options.start != StartModel::kd || kd.student != StudentStart::untrained || kd.gate ||
             kd.target == TeachingTarget::joint) {
    recipients.push_back("the server, those shared with peers");
  }
  if (options.validation == ValidationSource::federated) {
    recipients.push_back("every client, those shared with peers: federated validation has each of them count on them");
  }
  if (may_start_from(options, StartModel::average)) {
    recipients.push_back(
        "every client, those shared with peers, where fewer than three are averaged or one is most of the average");
  }
  if (may_start_from(options, StartModel::best_local)) {
    recipients.push_back("every client, one shared with peers: the best local model is what round 1 starts from");
  }
  if (is_kd && options.consolidation.student != StudentStart::untrained) {
    recipients.push_back("every client, one shared with peers: the seed is distilled from its weights on");
  }
  if (is_kd && options.consolidation.gate) {
    recipients.push_back(
        "every client, one shared with peers, where the gate refuses the seed: the best local model is then what round "
        "1 starts from");
  }
  if (is_kd && options.consolidation.target == TeachingTarget::joint) {
    recipients.push_back("every client, those shared with peers: each computes all their features of its samples");
  }
  if (is_kd && options.consolidation.transfer == TransferSet::student) {
    recipients.push_back("the student's client, those shared with peers: they teach on its data");
  }
  return recipients;
}

}  // namespace headstart::server
