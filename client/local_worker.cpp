#include "client/local_worker.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/types.h>

#include "shared/base/digest.hpp"
#include "shared/base/log.hpp"
#include "shared/learn/core/platform.hpp"
#include "shared/learn/data/stratified.hpp"
#include "shared/learn/distill/distiller.hpp"
#include "shared/learn/models/model_size.hpp"

namespace headstart::client {

namespace {

/// Of work without gradients. The statistics of a model depend on it.
constexpr std::int64_t batch_size = 256;

learn::Samples moved(const learn::Samples& samples, c10::Device device) {
  return {samples.x.to(device), samples.y.to(device)};
}

std::string constants_text(const std::vector<double>& mean, const std::vector<double>& deviation) {
  if (mean.empty()) return "none";
  return fmt::format("{:.4g} and {:.4g}", fmt::join(mean, ", "), fmt::join(deviation, ", "));
}

/// Progress of a part of work of `total` samples, `before` of which were done ahead of it. Borrows `whole`.
learn::ProgressCallback part_of(const learn::ProgressCallback& whole, std::int64_t before, std::int64_t total) {
  if (!whole) return {};
  return [&whole, before, total](const learn::Progress& part) { whole({.done = before + part.done, .total = total}); };
}

}  // namespace

LocalWorker::LocalWorker(LocalWorkerOptions options, learn::Dataset data)
    : options_(std::move(options)), data_(std::move(data)), device_(learn::device_of(options_.device)) {
  if (data_.size() == 0) {
    throw Error(Errc::data, fmt::format("client {} has no samples; check data.manifest and data.share, or data.path",
                                        options_.name));
  }
  figures_ = learn::figures_of(data_);
  if (!options_.store) return;
  try {
    store_.emplace(*options_.store);
  } catch (const Error& error) {
    spdlog::warn(
        "store.pretrained: {}; the pre-trained model is kept in memory only, and a client that is started again "
        "trains it again",
        error.what());
  }
}

LocalWorker::~LocalWorker() = default;

wire::Join LocalWorker::join(const plan::Terms& terms) {
  terms_ = terms;
  terms_.model = with_local_script(terms.model);
  if (terms_.samples.classes.empty()) terms_.samples.classes = learn::numbered_classes(terms.task.num_classes);
  global_model_.reset();
  pretrained_.reset();
  teacher_logits_.reset();
  remarks_.clear();

  wire::Join join;
  const learn::ClassList classes = learn::class_list(data_);
  join.num_classes =
      static_cast<std::uint32_t>(classes.source == learn::ClassSource::stated ? classes.count : terms.task.num_classes);
  join.channels = static_cast<std::uint32_t>(data_.images.size(1));
  join.height = static_cast<std::uint32_t>(data_.images.size(2));
  join.width = static_cast<std::uint32_t>(data_.images.size(3));
  join.samples = plan::to_json_text(plan::SampleReport{classes, figures_});
  join.architecture = terms_.model.architecture();
  join.shares_with_peers = options_.shares_with_peers;
  if (options_.own_model && options_.own_model->architecture() != terms_.model.architecture()) {
    require_within_limit(*options_.own_model, "own_model", Errc::usage);
    join.own_architecture = options_.own_model->architecture();
    join.own_model = plan::to_json_text(*options_.own_model);
    if (options_.own_model->is_scripted()) {
      spdlog::warn(
          "own_model: the other silos do not have this script, so the model does not teach where the run distils on "
          "student data, and is not rated at the clients; on public data it teaches");
    }
  }
  const learn::Task mine{join.channels, join.height, join.width, join.num_classes};
  const bool fits = mine == terms.task && !learn::class_misfit(classes, terms_.samples.classes) &&
                    (terms.architecture.empty() || terms.architecture == join.architecture.value);
  const auto [training, held_out] = learn::holdout_split(
      fits ? learn::labels_in(data_, terms_.samples.classes) : data_.labels, terms.held_out, seeds().child("held out"));
  join.num_examples = static_cast<std::uint64_t>(training.size(0));
  join.num_held_out = static_cast<std::uint64_t>(held_out.size(0));
  // What does not fit cannot be computed with; the server says what it expects.
  if (!fits) return join;
  const learn::Samples samples = learn::model_input(data_, terms_.samples);
  training_ = moved(samples.select(training), device_);
  held_out_ = moved(samples.select(held_out), device_);
  note_what_is_odd();
  if (!join.own_model.value.empty()) (void)make(*options_.own_model, seeds().child("model"));  // refused now
  join.schema = global_schema().digest();
  return join;
}

void LocalWorker::note_what_is_odd() {
  const learn::SampleTerms& run = terms_.samples;
  std::vector<std::string> missing;
  const at::Tensor counts = torch::bincount(learn::labels_in(data_, run.classes), {}, terms_.task.num_classes);
  for (std::int64_t label = 0; label < terms_.task.num_classes; ++label) {
    if (counts[label].item<std::int64_t>() == 0) missing.push_back(run.classes[static_cast<std::size_t>(label)]);
  }
  if (!missing.empty()) {
    const bool may_count_from_1 = missing.front() == run.classes.front() && missing.back() != run.classes.back() &&
                                  data_.class_source == learn::ClassSource::labels;
    remarks_.push_back(
        fmt::format("no samples of {} are here{}", learn::list_text(missing),
                    may_count_from_1 ? "; are the labels counted from 1? The first class is label 0" : ""));
  }
  if (std::string odd = learn::odd_inputs(figures_, run); !odd.empty()) remarks_.push_back(std::move(odd));
  if (data_.classes.empty() && run.classes != learn::numbered_classes(terms_.task.num_classes)) {
    remarks_.push_back(
        fmt::format("the data here do not name their classes (classes in meta.json): label 0 is taken for "
                    "the run's {}, and so on",
                    learn::list_text({run.classes.front()})));
  }
  if (!data_.mean.empty() && (data_.mean != run.mean || data_.deviation != run.deviation)) {
    remarks_.push_back(
        fmt::format("values are normalised by the run's mean and deviation ({}), not by those of the data "
                    "set here ({})",
                    constants_text(run.mean, run.deviation), constants_text(data_.mean, data_.deviation)));
  }
  if (const auto twins = learn::names_that_differ_in_case(run.classes)) {
    remarks_.push_back(fmt::format("the run's classes {} differ only in upper and lower case",
                                   learn::list_text({twins->first, twins->second})));
  }
}

learn::ModelSpec LocalWorker::with_local_script(learn::ModelSpec spec) const {
  if (!spec.is_scripted()) return spec;
  if (options_.script.empty()) {
    throw Error(Errc::usage, "the run trains a scripted model; name this silo's copy of the file with model.script");
  }
  spec.name = "script:" + options_.script;
  return spec;
}

const learn::ModelSpec& LocalWorker::own_spec() const {
  return options_.own_model ? *options_.own_model : terms_.model;
}

std::unique_ptr<learn::Model> LocalWorker::make(const learn::ModelSpec& spec, Seed seed) const {
  auto model = learn::make_model(spec, terms_.task, seed);
  model->to(device_);
  return model;
}

learn::Model& LocalWorker::global_model() {
  if (!global_model_) global_model_ = make(terms_.model, terms_.seeds().child("model"));
  return *global_model_;
}

learn::Schema LocalWorker::global_schema() { return global_model().schema(); }

void LocalWorker::require_within_limit(const learn::ModelSpec& spec, const std::string& owner, Errc code) {
  if (const auto excess = plan::beyond_own_model_limit(spec, terms_, learn::state_bytes(terms_.model, terms_.task))) {
    throw Error(code, fmt::format("{}: {}", owner, *excess));
  }
}

learn::Schema LocalWorker::schema_of(const learn::ModelSpec& spec) {
  if (!spec.is_scripted()) require_within_limit(spec, "a model from the server", Errc::protocol);
  return make(with_local_script(spec), terms_.seeds().child("model"))->schema();
}

std::string LocalWorker::pretraining_key() const {
  Sha256 sha;
  for (const learn::Samples& part : {training_, held_out_}) {
    sha.update(wire::PackedState::of_tensor("x", part.x).bytes());
    sha.update(wire::PackedState::of_tensor("y", part.y).bytes());
  }
  learn::PretrainOptions options = terms_.pretrain;
  Fields fields;
  learn::declare_fields(fields, "pretrain", options);
  sha.update(fmt::format("|{}|{}|{}|{}|{}|{}", own_spec().architecture(), terms_.task.num_classes,
                         fields.resolved().dump(), seeds().value(), device_.str(), learn::platform_line()));
  return hex(sha.finish());
}

wire::PretrainDone LocalWorker::pretrain(const TaskContext& context) {
  const std::string key = store_ ? pretraining_key() : "";
  if (store_) {
    if (auto entry = store_->find(key)) {
      pretrained_ = std::move(entry->model);
      return entry->done;
    }
  }
  const auto model = make(own_spec(), seeds().child("model"));
  const auto lease = learn::lease_for(*model, seeds().child("pretrain").child("layers"));
  learn::PretrainResult result = learn::pretrain(*model, training_, held_out_, terms_.pretrain,
                                                 seeds().child("pretrain"), context.progress, context.stop);
  pretrained_ = wire::PackedState(result.best);
  wire::PretrainDone done;
  done.seconds = context.seconds();
  done.num_epochs = static_cast<std::uint32_t>(result.num_epochs);
  done.best_epoch = static_cast<std::uint32_t>(result.best_epoch);
  if (store_) keep(key, done);
  return done;
}

void LocalWorker::keep(const std::string& key, const wire::PretrainDone& done) const {
  try {
    store_->keep(key, {*pretrained_, done}, plan::metadata_of(terms_, own_spec().architecture()));
  } catch (const Error& error) {
    spdlog::warn(
        "the pre-trained model is used but could not be kept: {}; a client that is started again trains it again",
        error.what());
  }
}

wire::PackedState LocalWorker::pretrained(const TaskContext& context) {
  if (!pretrained_) pretrain(context);
  return *pretrained_;
}

wire::PackedState LocalWorker::train(const wire::PackedState& global, std::uint32_t round, const TaskContext& context) {
  learn::Model& model = global_model();
  model.load(global.state());
  const Seed seed = seeds().child("train").child(round);
  const auto lease = learn::lease_for(model, seed.child("layers"));
  const auto orders = learn::epoch_orders(training_.size(), terms_.train.epochs, seed);
  learn::train(model, training_, terms_.train, orders, context.progress, context.stop);
  return wire::PackedState(model.state());
}

learn::Evaluation LocalWorker::evaluate(const wire::PackedState& model,
                                        const std::optional<learn::ModelSpec>& candidate, const TaskContext& context) {
  std::unique_ptr<learn::Model> other;
  if (candidate) other = make(with_local_script(*candidate), terms_.seeds().child("model"));
  learn::Model& evaluated = other ? *other : global_model();
  evaluated.load(model.state());
  return learn::evaluate(evaluated, held_out_, terms_.task.num_classes, batch_size, context.stop, context.progress);
}

wire::PackedState LocalWorker::logits(const wire::PackedState& samples, const TaskContext& context) {
  const auto model = make(own_spec(), terms_.seeds().child("model"));
  model->load(pretrained(context).state());
  const at::Tensor x = samples.state().tensors().front().tensor.to(device_);
  return wire::PackedState::of_tensor("logits",
                                      learn::logits_of(*model, x, batch_size, context.stop, context.progress));
}

wire::PackedState LocalWorker::distill(const Consolidation& task, const TaskContext& context) {
  learn::DistillOptions options = terms_.consolidation;
  const bool has_logits = teacher_logits_ && teacher_logits_->inputs == task.inputs;
  const std::int64_t before_student =
      has_logits ? 0 : training_.size() * static_cast<std::int64_t>(task.teachers.size());
  const std::int64_t total = before_student + training_.size() * options.epochs;
  if (!has_logits) {
    std::vector<at::Tensor> logits;
    std::int64_t done = 0;
    for (const Teacher& teacher : task.teachers) {
      const auto model = make(with_local_script(teacher.spec), terms_.seeds().child("model"));
      model->load(teacher.state.state());
      logits.push_back(
          learn::logits_of(*model, training_.x, batch_size, context.stop, part_of(context.progress, done, total)));
      done += training_.size();
    }
    teacher_logits_ = {task.inputs, torch::stack(logits)};
  }
  options.temperature = task.setting.temperature;
  options.alpha = task.setting.alpha;
  const learn::SoundTeachers sound =
      learn::sound_teachers(teacher_logits_->logits, task.weights.state().tensors().front().tensor);
  for (const std::int64_t dropped : sound.dropped) {
    spdlog::warn("the model of '{}' does not teach, its logits are not finite",
                 task.teachers[static_cast<std::size_t>(dropped)].client);
  }
  const at::Tensor targets = learn::soft_targets(sound.logits, sound.weights, options);
  learn::Model& model = global_model();
  model.load(task.student.state());
  const Seed seed = terms_.seeds().child("consolidation");
  const auto lease = learn::lease_for(model, seed.child("layers"));
  learn::distill(model, training_, targets.to(device_), options, seed, part_of(context.progress, before_student, total),
                 context.stop);
  return wire::PackedState(model.state());
}

wire::PackedState LocalWorker::reestimate_statistics(const wire::PackedState& model, const TaskContext& context) {
  global_model().load(model.state());
  learn::reestimate_statistics(global_model(), training_.x, batch_size, context.stop, context.progress);
  return wire::PackedState(global_model().state());
}

}  // namespace headstart::client
