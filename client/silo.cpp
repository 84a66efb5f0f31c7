#include "client/silo.hpp"

#include <tuple>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/types.h>

#include "client/consent.hpp"
#include "client/given_samples.hpp"
#include "shared/base/digest.hpp"
#include "shared/base/log.hpp"
#include "shared/learn/core/platform.hpp"
#include "shared/learn/data/feature_statistics.hpp"
#include "shared/learn/data/stratified.hpp"
#include "shared/learn/models/model_size.hpp"
#include "shared/learn/train/train.hpp"

namespace headstart::client {

namespace {

learn::Samples moved(const learn::Samples& samples, c10::Device device) {
  return {samples.x.to(device), samples.y.to(device)};
}

std::string constants_text(const std::vector<double>& mean, const std::vector<double>& deviation) {
  if (mean.empty()) return "none";
  return fmt::format("{:.4g} and {:.4g}", fmt::join(mean, ", "), fmt::join(deviation, ", "));
}

}  // namespace

Silo::Silo(SiloOptions options, learn::Dataset data)
    : options_(std::move(options)), data_(std::move(data)), device_(learn::device_of(options_.device)) {
  if (data_.size() == 0) {
    throw Error(Errc::data, fmt::format("client {} has no samples; check data.manifest and data.share, or data.path",
                                        options_.name));
  }
  if (!data_.table) figures_ = learn::figures_of(data_);
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

Silo::~Silo() = default;

wire::Join Silo::join(const plan::Terms& terms) {
  learn::require_precision(terms.precision, device_);
  terms_ = terms;
  terms_.model = with_local_script(terms.model);
  if (terms_.samples.classes.empty()) terms_.samples.classes = learn::numbered_classes(terms.task.num_classes);
  global_model_.reset();
  pretrained_.reset();
  memory_.clear();
  remarks_.clear();
  training_ = held_out_ = {};
  normalisation_.clear();
  if (data_.table) {
    data_ = learn::in_terms(data_, terms_.samples);
    figures_ = learn::figures_of(data_);
  }

  wire::Join join;
  const learn::ClassList classes = learn::class_list(data_);
  join.num_classes =
      static_cast<std::uint32_t>(classes.source == learn::ClassSource::stated ? classes.count : terms.task.num_classes);
  const learn::Task mine{data_.task().shape, join.num_classes};
  join.shape = std::vector<std::uint32_t>(mine.shape.begin(), mine.shape.end());
  // The least and greatest value of a table's column are those of single rows; what does not fit was said above.
  if (!data_.table) join.samples = plan::to_json_text(plan::SampleReport{classes, figures_});
  join.architecture = terms_.model.architecture();
  join.shares_with_peers = options_.shares_with_peers;
  join.withholds_model = options_.withholds_model;
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
  const bool fits = mine == terms.task && !learn::class_misfit(classes, terms_.samples.classes) &&
                    (terms.architecture.empty() || terms.architecture == join.architecture.value);
  std::tie(training_rows_, held_out_rows_) = learn::holdout_split(
      fits ? learn::labels_in(data_, terms_.samples.classes) : data_.labels, terms.held_out, seeds().child("held out"));
  join.num_examples = static_cast<std::uint64_t>(training_rows_.size(0));
  join.num_held_out = static_cast<std::uint64_t>(held_out_rows_.size(0));
  // What does not fit cannot be computed with; the server says what it expects.
  if (!fits) return join;
  if (terms_.statistics == plan::StatisticsSource::given) take_up_samples();
  note_what_is_odd();
  if (!join.own_model.value.empty()) (void)make(*options_.own_model, seeds().child("model"));  // refused now
  join.schema = global_model().schema().digest();
  return join;
}

void Silo::take_up_samples() {
  const learn::Samples samples = learn::model_input(data_, terms_.samples);
  training_ = moved(samples.select(training_rows_), device_);
  held_out_ = moved(samples.select(held_out_rows_), device_);
}

void Silo::normalise(const Input& input) {
  if (!normalisation_.empty() && input.digest == normalisation_) return;
  const at::Tensor& given = input.state.state().tensors().front().tensor;
  const std::int64_t channels = terms_.task.shape.front();
  const bool is_sound = terms_.statistics == plan::StatisticsSource::federated && given.scalar_type() == at::kDouble &&
                        given.sizes().equals({2, channels}) && given.isfinite().all().item<bool>() &&
                        given[1].ge(learn::smallest_deviation).all().item<bool>();
  if (!is_sound) {
    throw Error(Errc::protocol,
                fmt::format("a normalisation that is none of the run's: expected float64 mean and deviation of {} "
                            "channels, where data.statistics is federated",
                            channels));
  }
  const auto numbers = [channels](const at::Tensor& row) {
    const at::Tensor held = row.contiguous();
    return std::vector<double>(held.data_ptr<double>(), held.data_ptr<double>() + channels);
  };
  terms_.samples.mean = numbers(given[0]);
  terms_.samples.deviation = numbers(given[1]);
  take_up_samples();
  normalisation_ = input.digest;
}

Silo::Description Silo::describe() const {
  const learn::Samples all = learn::stored_input(data_, terms_.samples);
  const learn::FeatureStatistics own = learn::statistics_of(all.x.index_select(0, training_rows_));
  const std::int64_t num_samples = training_rows_.size(0);
  const at::Tensor statistics =
      learn::packed(learn::released(own, terms_.samples.table, options_.min_described_samples, options_.shows_range));
  if (num_samples < options_.min_described_samples) return {{}, torch::zeros_like(statistics)};
  return {{.num_samples = num_samples, .has_range = options_.shows_range}, statistics};
}

void Silo::note_what_is_odd() {
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
  const bool is_normalised_later = terms_.statistics == plan::StatisticsSource::federated;
  if (std::string odd = learn::odd_inputs(figures_, run); !odd.empty() && !is_normalised_later) {
    remarks_.push_back(std::move(odd));
  }
  if (data_.table) {
    const std::vector<std::string> unused = learn::unused_columns(*data_.table, run.table);
    if (!unused.empty()) {
      remarks_.push_back(fmt::format("{}: columns {} are none of the run's and are left aside", data_.table->file,
                                     learn::list_text(unused)));
    }
  }
  if (data_.classes.empty() && run.classes != learn::numbered_classes(terms_.task.num_classes)) {
    remarks_.push_back(
        fmt::format("the data here do not name their classes (classes in meta.json): label 0 is taken for "
                    "the run's {}, and so on",
                    learn::list_text({run.classes.front()})));
  }
  if (!data_.mean.empty() && !is_normalised_later && (data_.mean != run.mean || data_.deviation != run.deviation)) {
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

learn::ModelSpec Silo::with_local_script(learn::ModelSpec spec) const {
  if (spec.is_stated()) {
    throw Error(Errc::usage,
                "the run's model is known to the server by its tensors alone (model.name=state:FILE there): start this "
                "client with --worker COMMAND, a process that trains it (shared/worker_process)");
  }
  if (!spec.is_scripted()) return spec;
  if (options_.script.empty()) {
    throw Error(Errc::usage, "the run trains a scripted model; name this silo's copy of the file with model.script");
  }
  spec.name = "script:" + options_.script;
  return spec;
}

const learn::ModelSpec& Silo::own_spec() const { return options_.own_model ? *options_.own_model : terms_.model; }

std::unique_ptr<learn::Model> Silo::make(const learn::ModelSpec& spec) const {
  return make(with_local_script(spec), terms_.seeds().child("model"));
}

std::unique_ptr<learn::Model> Silo::make(const learn::ModelSpec& spec, Seed seed) const {
  auto model = learn::make_model(spec, terms_.task, seed);
  model->to(device_);
  return learn::in_precision(std::move(model), terms_.precision);
}

void Silo::require_shared_model() const {
  if (options_.withholds_model) throw withheld_model();
}

learn::Model& Silo::global_model() {
  if (!global_model_) global_model_ = make(terms_.model, terms_.seeds().child("model"));
  return *global_model_;
}

void Silo::require_within_limit(const learn::ModelSpec& spec, const std::string& owner, Errc code) {
  if (const auto excess = plan::beyond_own_model_limit(spec, terms_, learn::state_bytes(terms_.model, terms_.task))) {
    throw Error(code, fmt::format("{}: {}", owner, *excess));
  }
}

learn::Schema Silo::schema_of(const learn::ModelSpec& spec) {
  if (!spec.is_scripted()) require_within_limit(spec, "a model from the server", Errc::protocol);
  return make(spec)->schema();
}

std::string Silo::pretraining_key() const {
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
  if (terms_.precision != learn::Precision::float32) {
    sha.update(word_of(Choices<learn::Precision>(learn::precision_words), terms_.precision));
  }
  if (!terms_.validation_metric().is_accuracy()) sha.update("|" + terms_.metric);
  return hex(sha.finish());
}

plan::Pretraining Silo::pretrain(const TaskContext& context) {
  const std::string key = store_ ? pretraining_key() : "";
  if (store_) {
    if (auto entry = store_->find(key)) {
      pretrained_ = std::move(entry->model);
      return entry->done;
    }
  }
  const auto model = make(own_spec(), seeds().child("model"));
  const auto lease = learn::lease_for(*model, seeds().child("pretrain").child("layers"));
  learn::PretrainOptions options = terms_.pretrain;
  options.metric = terms_.validation_metric();
  learn::PretrainResult result =
      learn::pretrain(*model, training_, held_out_, options, seeds().child("pretrain"), context.progress, context.stop);
  pretrained_ = wire::PackedState(result.best);
  plan::Pretraining done;
  done.seconds = context.seconds();
  done.num_epochs = result.num_epochs;
  done.best_epoch = result.best_epoch;
  if (store_) keep(key, done);
  return done;
}

void Silo::keep(const std::string& key, const plan::Pretraining& done) const {
  try {
    store_->keep(key, {*pretrained_, done}, plan::metadata_of(terms_, own_spec().architecture()));
  } catch (const Error& error) {
    spdlog::warn(
        "the pre-trained model is used but could not be kept: {}; a client that is started again trains it again",
        error.what());
  }
}

wire::PackedState Silo::pretrained(const TaskContext& context) {
  if (!pretrained_) pretrain(context);
  return *pretrained_;
}

at::Tensor Silo::samples_of(const Input& input) const { return given_samples(input, terms_).to(device_); }

}  // namespace headstart::client
