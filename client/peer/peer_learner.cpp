#include "client/peer/peer_learner.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/wire/packed_state.hpp"

namespace headstart::peer {

namespace {

learn::Samples moved(const learn::Samples& samples, c10::Device device) {
  return {samples.x.to(device), samples.y.defined() ? samples.y.to(device) : samples.y};
}

client::SiloOptions named(client::SiloOptions options, const std::string& name) {
  options.name = name;
  return options;
}

}  // namespace

PeerLearner::PeerLearner(const PeersFile& file, const std::string& name, const client::SiloOptions& silo, PeerData data)
    : silo_(named(silo, name), std::move(data.own)), terms_(file.terms(silo.script)), peer_(peer_in(file, name)) {
  const wire::Join join = silo_.join(terms_);
  if (const auto reason = plan::misfit(join, terms_)) {
    throw Error(Errc::data, fmt::format("the samples of '{}' do not fit peers.json: {}", name, *reason));
  }
  const learn::PeerMethodRow& row = learn::peer_method_row(file.options().method);
  method_ = row.make(file.options());
  peer_.training = silo_.training();
  peer_.num_classes = terms_.task.num_classes;
  peer_.seeds = silo_.seeds();
  peer_.run_seeds = terms_.seeds();
  peer_.make_model = [this] { return silo_.make(terms_.model); };
  if (data.public_samples) {
    peer_.public_samples = learn::model_input(*data.public_samples, terms_.samples).x.to(silo_.device());
  }
  if (data.test) test_ = moved(learn::model_input(*data.test, terms_.samples), silo_.device());
  const at::Tensor counts = at::bincount(peer_.training.y.cpu(), {}, peer_.num_classes);
  class_counts_.assign(counts.data_ptr<std::int64_t>(), counts.data_ptr<std::int64_t>() + counts.numel());
}

std::map<std::string, std::string> PeerLearner::digests() {
  std::map<std::string, std::string> digests{{"model schema", silo_.global_model().schema().digest()}};
  if (peer_.public_samples.defined()) {
    digests["public samples"] = wire::PackedState::of_tensor("x", peer_.public_samples).digest();
  }
  return digests;
}

learn::StateDict PeerLearner::start(const learn::PeerWork& work, const Clock& clock) {
  const client::TaskContext context{
      .progress = work.progress, .stop = work.stop, .received_at = clock(), .clock = clock};
  peer_.pretrained = silo_.pretrained(context).state();
  return method_->start(peer_);
}

learn::StateDict PeerLearner::prepare(learn::StateDict state, std::int64_t round, const learn::PeerWork& work) {
  return method_->prepare(peer_, std::move(state), round, work);
}

std::vector<std::string> PeerLearner::recipients(std::int64_t round) const { return method_->recipients(peer_, round); }

learn::StateDict PeerLearner::message(const learn::StateDict& state, std::int64_t round) {
  return method_->message(peer_, state, round);
}

learn::StateDict PeerLearner::combine(learn::StateDict state, const learn::Parts& received, std::int64_t round,
                                      const learn::PeerWork& work) {
  return method_->combine(peer_, std::move(state), received, round, work);
}

nlohmann::json PeerLearner::judge(const learn::StateDict& state, std::int64_t round) {
  const auto network = peer_.make_model();
  network->load(method_->model(state));
  nlohmann::json figures = {{"answering", method_->answering(round) == learn::Head::first ? 0 : 1}};
  if (silo_.held_out().size() > 0) {
    for (const learn::Evaluation& head : learn::evaluate_heads(*network, silo_.held_out(), peer_.num_classes)) {
      figures["held_out"].push_back(head.accuracy());
    }
  }
  if (!test_) return figures;
  for (const learn::Evaluation& head : learn::evaluate_heads(*network, *test_, peer_.num_classes)) {
    figures["global"].push_back(head.mean_class_accuracy());
    figures["own"].push_back(head.accuracy_on(class_counts_));
  }
  return figures;
}

wire::Metadata PeerLearner::metadata() const { return plan::metadata_of(terms_, terms_.architecture); }

}  // namespace headstart::peer
