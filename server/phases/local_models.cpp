#include "server/phases/local_models.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <torch/types.h>

#include "server/phases/class_weights.hpp"
#include "server/phases/disclosure.hpp"
#include "server/sessions/client_tasks.hpp"
#include "server/uploads/inspection.hpp"
#include "shared/learn/distill/distiller.hpp"
#include "shared/net/offload.hpp"
#include "shared/wire/safetensors.hpp"

namespace headstart::server {

void LocalModels::require_quorum(PhaseKind phase) const {
  const auto quorum = static_cast<std::size_t>(quorum_of(context_.options()));
  if (models_.size() >= quorum) return;
  throw Error(Errc::run_failed, fmt::format("{}: {} of {} clients finished, {} are needed", recorded({phase}),
                                            models_.size(), context_.roster.all().size(), quorum));
}

void LocalModels::restore(const std::map<std::string, LocalModelRecord>& records) {
  for (const auto& [client, record] : records) {
    LocalModel model{record, client, {}, {}};
    try {
      if (model.num_bytes && load(model).digest() != model.digest) {
        throw Error(Errc::data, "its content has changed");
      }
    } catch (const Error& error) {
      context_.observer.on_note(fmt::format("the model of {} is collected again: {}", client, error.what()));
      model.num_bytes.reset();
      model.digest.clear();
      model.rating.reset();
    }
    models_.emplace(client, std::move(model));
  }
}

void LocalModels::keep_record(const LocalModel& model) const {
  context_.folder.write_down(LocalModelEvent{model.client, model});
}

net::Task<> LocalModels::pretrain() {
  std::vector<std::shared_ptr<ClientSession>> clients = context_.roster.active();
  std::erase_if(clients, [this](const auto& client) { return models_.contains(client->name()); });
  if (clients.empty()) co_return require_quorum(PhaseKind::pretraining);
  context_.observer.on_phase({PhaseKind::pretraining}, clients.size());
  const TimePoint begin = context_.clock();
  const auto take_from = [this](ClientSession& client) -> net::Task<bool> {
    auto pretraining = server::pretrain(client);
    const Pretraining done = co_await std::move(pretraining);
    const ClientInfo& info = client.info();
    LocalModel model;
    model.client = info.name;
    model.num_examples = info.num_examples;
    model.shares_with_peers = info.shares_with_peers;
    model.withholds_model = info.withholds_model;
    model.spec = info.own_model.value_or(context_.terms().model);
    model.has_federated_architecture = !info.own_model.has_value();
    model.architecture = info.own_model ? info.own_architecture : context_.terms().model.architecture();
    model.pretraining = done;
    keep_record(model);
    models_.emplace(info.name, std::move(model));
    co_return true;
  };
  const auto answers = co_await context_.roster.ask<bool>(clients, take_from);
  phase_seconds_ = seconds_between(begin, context_.clock());
  for (const auto& answer : answers) {
    if (!answer.value) context_.leave_out({PhaseKind::pretraining}, answer.client->name(), answer.reason);
  }
  require_quorum(PhaseKind::pretraining);
}

std::string LocalModels::why_not_sent(const LocalModel& model) const {
  if (model.withholds_model) return "its silo says share_model: answers";
  // Whose models are not needed, the server does not see.
  const FederationOptions& options = context_.options();
  const ConsolidationOptions& kd = options.consolidation;
  const bool is_kd = may_start_from(options, StartModel::kd);
  const bool may_start = options.start == StartModel::automatic || may_start_from(options, StartModel::best_local) ||
                         (is_kd && (kd.student != StudentStart::untrained || kd.gate));
  const bool is_joint = is_kd && kd.target == TeachingTarget::joint;
  if (may_start_from(options, StartModel::average) || teaches_by_models(options)) return {};
  if (model.shares_with_peers && ((may_start && model.has_federated_architecture) || is_joint)) return {};
  return "the run does not need it";
}

net::Task<> LocalModels::collect() {
  std::vector<std::shared_ptr<ClientSession>> clients = context_.roster.active();
  std::erase_if(clients, [&](const auto& client) {
    const auto model = models_.find(client->name());
    return model == models_.end() || model->second.num_bytes;
  });
  std::erase_if(clients, [&](const auto& client) {
    LocalModel& model = models_.at(client->name());
    model.reason = why_not_sent(model);
    return !model.reason.empty();
  });
  context_.observer.on_phase({PhaseKind::exchange}, clients.size());
  const bool on_public = teaches_by_models(context_.options()) && context_.data.transfer.size() > 0 &&
                         context_.options().consolidation.transfer != TransferSet::student;
  DigestedState samples;
  const bool needs_logits = std::ranges::any_of(
      clients, [&](const auto& client) { return !models_.at(client->name()).has_federated_architecture; });
  if (on_public && needs_logits) {
    auto packing = net::offload(context_.pool, [this] {
      at::Tensor x = context_.data.transfer.x;
      if (num_rated() > 0) x = torch::cat({context_.data.validation.x, x});
      const wire::PackedState packed = wire::PackedState::of_tensor("samples", x.cpu());
      return DigestedState{packed.digest(), packed};
    });
    samples = co_await std::move(packing);
  }
  const auto take_from = [&](ClientSession& client) -> net::Task<bool> {
    LocalModel& model = models_.at(client.name());
    if (model.has_federated_architecture || (!on_public && !model.spec.is_scripted())) {
      co_await collect_weights(client, model);
    } else if (on_public) {
      co_await collect_logits(client, model, samples);
    } else {
      model.reason = "its scripted model is not known to the other silos";
    }
    co_return true;
  };
  const auto answers = co_await context_.roster.ask<bool>(clients, take_from);
  std::map<std::string, std::string> reasons;
  for (const auto& answer : answers) reasons[answer.client->name()] = answer.reason;
  std::erase_if(models_, [&](const auto& entry) {
    const auto& [client, model] = entry;
    const bool is_missing = !model.num_bytes && !model.transfer_logits && model.reason.empty();
    if (!is_missing) return false;
    const auto reason = reasons.find(client);
    context_.leave_out({PhaseKind::exchange}, client, reason == reasons.end() ? "it is not there" : reason->second);
    return true;
  });
  require_quorum(PhaseKind::exchange);
}

net::Task<> LocalModels::collect_weights(ClientSession& client, LocalModel& model) {
  learn::Schema schema = context_.global_schema;
  if (!model.has_federated_architecture) {
    const Seed seed = context_.terms().seeds().child("model");
    auto building = net::offload(context_.pool, [this, spec = model.spec, seed] {
      return learn::make_model(spec, context_.data.task, seed)->schema();
    });
    schema = co_await std::move(building);
  }
  auto exchanging = exchange(client, schema.num_bytes());
  Upload upload = co_await std::move(exchanging);
  const auto keep = [this, &model](const wire::PackedState& state) {
    wire::save_safetensors(context_.folder.model_of(model.client), state,
                           plan::metadata_of(context_.terms(), model.architecture));
  };
  auto taking = take_state(context_.intake(), client.name(), upload, schema, "pre-trained model", keep);
  model.digest = co_await std::move(taking);
  model.num_bytes = schema.num_bytes();
  keep_record(model);
}

std::int64_t LocalModels::num_rated() const {
  return context_.options().validation == ValidationSource::server ? context_.data.validation.size() : 0;
}

net::Task<> LocalModels::collect_logits(ClientSession& client, LocalModel& model, const DigestedState& samples) {
  const std::int64_t num_samples = num_rated() + context_.data.transfer.size();
  auto asking = server::logits(client, DisclosurePolicy::release_tensors("public samples", samples),
                               static_cast<std::uint64_t>(num_samples));
  Upload upload = co_await std::move(asking);
  const std::int64_t num_public = context_.data.transfer.size();
  const std::int64_t num_classes = context_.data.task.num_classes;
  const learn::Schema schema({{"logits", c10::ScalarType::Float, {num_samples, num_classes}}});
  const auto split = [&](const wire::PackedState& state) {
    const at::Tensor logits = state.state().tensors().front().tensor;
    model.transfer_logits = logits.narrow(0, num_rated(), num_public);
    if (num_rated() == 0) return;
    model.rating = learn::evaluate_logits(logits.narrow(0, 0, num_rated()), context_.data.validation.y.cpu(),
                                          num_classes, context_.metric().measures());
  };
  auto taking = take_state(context_.intake(), client.name(), upload, schema, "logits", split);
  co_await std::move(taking);
}

net::Task<> LocalModels::rate() {
  const ValidationSource source = context_.options().validation;
  if (source == ValidationSource::none) co_return;
  context_.observer.on_phase({PhaseKind::rating}, models_.size());
  if (source == ValidationSource::federated) {
    context_.observer.on_note(
        "every client is sent each pre-trained model that another silo shares with peers, to count on its held-out "
        "data");
  }
  for (auto& [name, model] : models_) {
    if (model.rating || !model.num_bytes) continue;
    if (source == ValidationSource::federated && !model.shares_with_peers) continue;
    if (source == ValidationSource::server) {
      auto rating = net::offload(context_.pool, [this, &model = model] {
        const at::Tensor scores = logits(model, context_.data.validation.x);
        return learn::evaluate_logits(scores, context_.data.validation.y.cpu(), context_.data.task.num_classes,
                                      context_.metric().measures());
      });
      model.rating = co_await std::move(rating);
    } else {
      co_await rate_federated(model);
    }
    keep_record(model);
  }
}

net::Task<> LocalModels::rate_federated(LocalModel& model) {
  const std::filesystem::path file = context_.folder.model_of(model.client);
  const auto ask = [&](ClientSession& client) {
    auto state = session::source_of_model_file(file, *model.num_bytes);
    return evaluate(client, DisclosurePolicy(client.name()).release(model.client, model, std::move(state)), false,
                    context_.rating_settings());
  };
  auto counting = context_.evaluate_at_clients(PhaseKind::rating, context_.judges_of(model.client), ask, nullptr);
  learn::Evaluation others = co_await std::move(counting);
  model.is_rated_by_owner = others.num_samples() == 0;
  if (!model.is_rated_by_owner) {
    model.rating = std::move(others);
    co_return;
  }
  std::vector<std::shared_ptr<ClientSession>> owner;
  if (const auto client = context_.roster.find(model.client)) owner.push_back(client);
  auto counting_own = context_.evaluate_at_clients(PhaseKind::rating, std::move(owner), ask, nullptr);
  learn::Evaluation own = co_await std::move(counting_own);
  if (own.num_samples() == 0) {
    throw Error(Errc::run_failed, "federated validation: no client has held-out samples; raise data.held_out");
  }
  context_.observer.on_note(fmt::format(
      "no other client has held-out samples: {}'s model is rated by its own, which chose its epoch", model.client));
  model.rating = std::move(own);
}

std::string counted_by(ValidationSource source, const LocalModelRecord& model) {
  if (source == ValidationSource::server) return "the server's validation set";
  if (model.is_rated_by_owner) return "held-out data of its own client, as no other client has any";
  return "held-out data of all clients but its own";
}

std::vector<Candidate> LocalModels::candidates() const {
  const bool on_student_data = context_.options().consolidation.transfer == TransferSet::student;
  const ConsolidationOptions& kd = context_.options().consolidation;
  const bool by_silos = kd.exchange == TeachingExchange::answers || kd.target == TeachingTarget::lifted;
  std::vector<Candidate> list;
  for (const auto& [name, model] : models_) {
    Candidate candidate{.client = name,
                        .has_federated_architecture = model.has_federated_architecture,
                        .can_teach = by_silos || model.reason.empty(),
                        .reason = model.reason,
                        .shares_with_peers = model.shares_with_peers,
                        .rating = model.rating};
    if (on_student_data && !model.num_bytes && candidate.can_teach) {
      candidate.can_teach = false;
      candidate.reason = "its weights are not at hand, and student data needs them";
    }
    list.push_back(std::move(candidate));
  }
  return list;
}

const LocalModel* LocalModels::best_shared() const {
  std::vector<Candidate> rated = candidates();
  std::erase_if(rated, [](const Candidate& c) {
    return !c.has_federated_architecture || !c.rating || !c.shares_with_peers || has_diverged(c);
  });
  if (rated.empty()) return nullptr;
  const auto before = [metric = context_.metric()](const Candidate& a, const Candidate& b) {
    return ranks_before(a, b, metric);
  };
  return &models_.at(std::ranges::min_element(rated, before)->client);
}

double LocalModels::longest_pretraining() const {
  double longest = 0;
  for (const auto& [name, model] : models_) longest = std::max(longest, model.pretraining.seconds);
  return longest;
}

wire::PackedState LocalModels::load(const LocalModel& model) const {
  return wire::load_safetensors(context_.folder.model_of(model.client)).model;
}

learn::Tensor LocalModels::logits(const LocalModel& model, const learn::Tensor& x) const {
  auto network = learn::make_model(model.spec, context_.data.task, context_.terms().seeds().child("model"));
  network->load(load(model).state());
  network->to(context_.device);
  const auto precise = learn::in_precision(std::move(network), context_.terms().precision);
  return learn::logits_of(*precise, x, 256, context_.stop);
}

net::Task<nlohmann::json> LocalModels::measure_ensemble() {
  const learn::Samples& test = context_.data.test;
  std::vector<const LocalModel*> members;
  for (const auto& [name, model] : models_) {
    if (model.num_bytes) members.push_back(&model);
  }
  if (members.empty() || test.size() == 0) co_return nullptr;
  auto measuring = net::offload(context_.pool, [this, &test, members] {
    const std::int64_t num_classes = context_.data.task.num_classes;
    std::vector<at::Tensor> logits;
    for (const LocalModel* member : members) logits.push_back(this->logits(*member, test.x));
    const at::Tensor stacked = torch::stack(logits);
    const auto accuracy = [&](const at::Tensor& weights) {
      return learn::evaluate_logits(learn::ensemble_scores(stacked, weights).log(), test.y.cpu(), num_classes)
          .accuracy();
    };
    nlohmann::json report = {
        {"equal", accuracy(learn::equal_weights(static_cast<std::int64_t>(members.size()), num_classes))}};
    if (std::ranges::all_of(members, [](const LocalModel* m) { return m->rating.has_value(); })) {
      for (const auto& [weighting, word] : learn::weighting_words) {
        if (!learn::needs_ratings(weighting)) continue;
        std::vector<learn::Evaluation> ratings;
        for (const LocalModel* member : members) ratings.push_back(*member->rating);
        report[std::string(word)] = accuracy(class_weights(ratings, ratings, std::nullopt, weighting));
      }
    }
    return report;
  });
  co_return co_await std::move(measuring);
}

nlohmann::json LocalModels::report() const {
  nlohmann::json list = nlohmann::json::array();
  for (const auto& [name, model] : models_) {
    nlohmann::json entry = {{"client", name},
                            {"architecture", model.architecture},
                            {"model", model.digest},
                            {"reused", model.pretraining.is_reused},
                            {"pretrain_seconds", model.pretraining.seconds},
                            {"epochs", model.pretraining.num_epochs},
                            {"best_epoch", model.pretraining.best_epoch}};
    if (model.rating) {
      entry["counted_by"] = counted_by(context_.options().validation, model);
      entry["counted_samples"] = model.rating->num_samples();
      entry["accuracy"] = model.rating->accuracy();
      entry["loss"] = model.rating->loss();
      entry["class_accuracy"] = model.rating->class_accuracy();
      if (!context_.metric().is_accuracy()) entry["value"] = context_.metric_value(*model.rating);
    }
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace headstart::server
