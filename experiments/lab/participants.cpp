#include "experiments/lab/participants.hpp"

#include <utility>

#include <fmt/format.h>
#include <torch/types.h>

#include "client/silo.hpp"
#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/data/sample_figures.hpp"
#include "shared/learn/data/sample_terms.hpp"
#include "shared/plan/terms.hpp"
#include "shared/wire/safetensors.hpp"

namespace headstart::lab {

namespace {

learn::Samples on_device(const learn::Dataset& dataset, const std::vector<std::int64_t>& indices, c10::Device device) {
  const learn::Samples samples = dataset.select(indices);
  return {samples.x.to(device), samples.y.to(device)};
}

/// Of a study's description, under "data".
constexpr std::pair<const char*, learn::Dataset StudyData::*> digests[] = {{"train_digest", &StudyData::train},
                                                                           {"test_digest", &StudyData::test}};

}  // namespace

void declare_fields(Fields& fields, ParticipantSettings& settings) {
  learn::declare_fields(fields, "data", settings.data);
  learn::declare_fields(fields, "draw", settings.draws);
  learn::declare_fields(fields, "partition", settings.partition);
  learn::declare_fields(fields, "model", settings.model);
  fields.path("participants", settings.participants,
              "Folder of model files that take the place of pre-training: silo-0.safetensors of model.*, or of the "
              "model settings in silo-0.json; or silo-0.pt, a TorchScript file; and so on for each. Empty: none.");
  fields.number("data.held_out", settings.held_out,
                "Fraction of a participant's samples kept for the early stopping of its pre-training.",
                {.min = 0, .max = 0.9});
  learn::declare_fields(fields, "pretrain", settings.pretrain);
  fields.text("device", settings.device, "cpu, cuda, or auto: cuda where there is one.");
  fields.integer("threads", settings.threads, "Threads of one computation.", {.min = 1, .max = 1024});
}

StudyData load_study_data(const learn::DataSource& source) {
  StudyData data{learn::load_dataset(source, learn::Split::train), learn::load_dataset(source, learn::Split::test)};
  learn::require_alike(data.train, data.test);
  return data;
}

nlohmann::json with_digests(nlohmann::json description, const StudyData& data) {
  for (const auto& [key, split] : digests) description["data"][key] = (data.*split).digest();
  return description;
}

void require_data_of(const nlohmann::json& description, const StudyData& data, const std::string& file) {
  for (const auto& [key, split] : digests) {
    const std::string was = description.at("data").value(key, "");
    const std::string is = (data.*split).digest();
    // A study that an earlier version began names none.
    if (!was.empty() && was != is) {
      throw Error(Errc::data, fmt::format("{}: the study is of other data (data.{} was '{}', is '{}'); name the folder "
                                          "of those it was begun with",
                                          file, key, was, is));
    }
  }
}

Participants::Participants(ParticipantSettings settings, const StudyData& data, std::int64_t seed,
                           std::filesystem::path store, Clock clock)
    : settings_(std::move(settings)),
      data_(data),
      seed_(seed),
      store_(std::move(store)),
      clock_(std::move(clock)),
      task_(data.train.task()),
      device_(learn::device_of(settings_.device)),
      manifest_(learn::draw_manifest(data.train, data.test, settings_.draws, settings_.partition,
                                     static_cast<std::uint64_t>(seed))) {
  validation_ = on_device(data.train, manifest_.validation, device_);
  public_large_ = on_device(data.train, manifest_.public_large, device_).without_labels();
  public_small_ = on_device(data.train, manifest_.public_small, device_).without_labels();
  public_labeled_ = on_device(data.train, manifest_.public_labeled, device_);
  test_ = on_device(data.test, manifest_.test, device_);
  for (std::size_t i = 0; i < manifest_.clients.size(); ++i) places_.push_back(std::make_unique<Place>());
}

Participants::~Participants() = default;

const Participant& Participants::at(std::int64_t index, std::stop_token stop) {
  Place& place = *places_.at(static_cast<std::size_t>(index));
  const std::scoped_lock lock(place.mutex);
  if (!place.participant) place.participant = make(index, std::move(stop));
  return *place.participant;
}

Participant Participants::make(std::int64_t index, std::stop_token stop) const {
  const std::string name = fmt::format("silo-{}", index);
  // Named and seeded as the clients of a federation, so that one folder of pre-trained models serves both.
  client::SiloOptions options{.name = name, .device = settings_.device, .own_model = {}, .script = {}, .store = store_};
  options.script = settings_.model.script_file();
  client::Silo silo(std::move(options), data_.train.part(manifest_.clients.at(static_cast<std::size_t>(index))));
  plan::Terms terms;
  terms.seed = seed_;
  terms.model = settings_.model;
  terms.task = task_;
  terms.samples = learn::sample_terms(data_.train);
  terms.held_out = settings_.held_out;
  terms.pretrain = settings_.pretrain;
  silo.join(terms);

  Participant participant;
  participant.name = name;
  participant.training = silo.training();
  if (settings_.participants.empty()) {
    const client::TaskContext context{
        .progress = {}, .stop = std::move(stop), .received_at = clock_(), .clock = clock_};
    participant.num_epochs = silo.pretrain(context).num_epochs;
    const wire::PackedState state = silo.pretrained(context);
    participant.spec = settings_.model;
    participant.state = state.state();
    participant.digest = state.digest();
  } else {
    load_from_folder(participant, name);
  }
  const auto model = model_of(participant);
  participant.test = on_test(*model);
  participant.validation = on_validation(*model);
  return participant;
}

void Participants::load_from_folder(Participant& participant, const std::string& name) const {
  const std::filesystem::path base = std::filesystem::path(settings_.participants) / name;
  const auto file = [&base](const char* extension) { return std::filesystem::path(base.string() + extension); };
  participant.spec = settings_.model;
  if (is_there(file(".pt"), Errc::data)) {
    participant.spec = {.name = "script:" + file(".pt").string()};
    participant.state = learn::make_model(participant.spec, task_, seeds())->state();
    participant.digest = wire::PackedState(participant.state).digest();
    return;
  }
  if (!is_there(file(".safetensors"), Errc::data)) {
    throw Error(Errc::data, fmt::format("{}: is not there, and {} neither; participants names a folder with a model "
                                        "for each of the {} participants",
                                        file(".safetensors").string(), file(".pt").string(), size()));
  }
  if (is_there(file(".json"), Errc::data)) {
    Fields fields;
    learn::declare_fields(fields, "model", participant.spec);
    fields.load_file(file(".json"));
  }
  const wire::ModelFile stored = wire::load_safetensors(file(".safetensors"));
  plan::Terms terms;
  terms.task = task_;
  terms.samples = learn::sample_terms(data_.train);
  if (const auto misfit = plan::metadata_misfit(stored.metadata, terms)) {
    throw Error(Errc::data, fmt::format("{}: {}; a model answers only for samples as it was trained on",
                                        file(".safetensors").string(), *misfit));
  }
  participant.state = stored.model.state();
  participant.digest = stored.model.digest();
  try {
    (void)model_of(participant);
  } catch (const Error& error) {
    throw Error(Errc::data, fmt::format("{}: is no {} for samples of {}: {}", file(".safetensors").string(),
                                        participant.spec.architecture(), learn::text_of(task_), error.what()));
  }
}

std::unique_ptr<learn::Model> Participants::model_of(const Participant& participant) const {
  auto model = learn::make_model(participant.spec, task_, seeds());
  model->load(participant.state);
  model->to(device_);
  return model;
}

std::unique_ptr<learn::Model> Participants::untrained() const {
  auto model = learn::make_model(settings_.model, task_, seeds().child("model"));
  model->to(device_);
  return model;
}

learn::Evaluation Participants::on_validation(learn::Model& model) const {
  return learn::evaluate(model, validation_, task_.num_classes);
}

learn::Evaluation Participants::on_test(learn::Model& model) const {
  return learn::evaluate(model, test_, task_.num_classes);
}

ParticipantsCache::ParticipantsCache(const StudyData& data, std::filesystem::path models, Clock clock)
    : data_(data), models_(std::move(models)), clock_(std::move(clock)) {}

std::shared_ptr<Participants> ParticipantsCache::of(const ParticipantSettings& settings, std::int64_t seed) {
  const std::scoped_lock lock(mutex_);
  const std::string key = fmt::format("{}/{}", settings.partition.kind, seed);
  for (const auto& [kept, participants] : kept_) {
    if (kept == key) return participants;
  }
  constexpr std::size_t num_kept = 2;
  if (kept_.size() == num_kept) kept_.erase(kept_.begin());
  kept_.emplace_back(key, std::make_shared<Participants>(settings, data_, seed, models_, clock_));
  return kept_.back().second;
}

}  // namespace headstart::lab
