#include "client/process_worker.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/types.h>

#include "client/consent.hpp"
#include "client/given_samples.hpp"
#include "client/weighted_answers.hpp"
#include "shared/base/log.hpp"
#include "shared/base/printable.hpp"
#include "shared/learn/distill/experts.hpp"
#include "shared/learn/train/evaluation.hpp"

namespace headstart::client {

namespace {

constexpr std::size_t max_remarks = 20;
/// Of features, for which no schema says how wide they are.
constexpr std::uint64_t max_feature_bytes = std::uint64_t{1} << 40;

nlohmann::json seed_of(const Seed& seed) { return seed.value(); }

void read_no_body(const worker_process::FrameHead& head) {
  if (head.num_body_bytes > 0) throw Error(Errc::protocol, "a 'result' with tensors, where figures alone are expected");
}

/// The first tensors, for people.
std::string words_on(const learn::Schema& schema) {
  constexpr std::size_t num_shown = 6;
  std::string words;
  for (const learn::TensorSpec& spec : schema.tensors()) {
    if (&spec == &schema.tensors()[std::min(num_shown, schema.tensors().size() - 1)] &&
        schema.tensors().size() > num_shown + 1) {
      return words + fmt::format(" and {} others", schema.tensors().size() - num_shown);
    }
    words += fmt::format("{}'{}' {} [{}]", words.empty() ? "" : ", ", printable(spec.name, 60),
                         learn::type_name(spec.dtype), fmt::join(spec.shape, ", "));
  }
  return words;
}

/// The scores of the held-out samples, counted of the logits and labels of an evaluation, which go no further.
std::optional<learn::ScoreCounts> scores_in(std::istream& in, const worker_process::FrameHead& head,
                                            std::int64_t num_samples, std::int64_t num_classes) {
  const learn::Schema schema({{"logits", c10::ScalarType::Float, {num_samples, num_classes}},
                              {"labels", c10::ScalarType::Long, {num_samples}}});
  const wire::PackedState state = worker_process::read_frame_state(in, head, schema);
  const at::Tensor& labels = state.state().at("labels");
  if (num_samples == 0) return std::nullopt;
  if (labels.min().item<std::int64_t>() < 0 || labels.max().item<std::int64_t>() >= num_classes) {
    throw Error(Errc::protocol, fmt::format("'labels' of an evaluation beyond the run's {} classes", num_classes));
  }
  return learn::evaluate_logits(state.state().at("logits"), labels, num_classes, learn::Measures::scores).scores;
}

learn::Tensor finite(learn::Tensor tensor, std::string_view what) {
  if (!at::isfinite(tensor).all().item<bool>()) {
    throw Error(Errc::run_failed, fmt::format("the worker's {} are not finite: its model diverged", what));
  }
  return tensor;
}

}  // namespace

/// What each task of a run needs the worker for.
struct ProcessWorker::KindRow {
  std::string_view kind;
  std::vector<std::string_view> needs;  ///< Kinds of the worker.
  TaskResult (ProcessWorker::*perform)(const Assignment&, const TaskContext&);
  std::string_view words;  ///< For people; empty: none.
};

const std::vector<ProcessWorker::KindRow>& ProcessWorker::rows() {
  static const std::vector<KindRow> all = {
      {plan::task::train, {"train"}, &ProcessWorker::train, ""},
      {plan::task::evaluate, {"evaluate"}, &ProcessWorker::evaluate, ""},
      {plan::task::pretrain, {"pretrain"}, &ProcessWorker::pretrain, "pre-training"},
      {plan::task::exchange, {"pretrain"}, &ProcessWorker::exchange, "exchange of models"},
      {plan::task::logits, {"pretrain", "logits"}, &ProcessWorker::logits, "logits of the public set"},
      {plan::task::answers, {"pretrain", "logits", "features"}, &ProcessWorker::answers, "answers on the public set"},
      {plan::task::densities,
       {"pretrain", "features"},
       &ProcessWorker::densities,
       "how much the public samples are like the own ones"},
      {plan::task::distill, {"distill"}, &ProcessWorker::distill, "consolidation"},
  };
  return all;
}

ProcessWorker::ProcessWorker(ProcessWorkerOptions options, worker_process::WorkerCommand command)
    : options_(std::move(options)), link_(std::move(command), "train") {
  spdlog::info("the worker is {}", link_.software().empty() ? "there" : link_.software());
}

ProcessWorker::~ProcessWorker() = default;

std::vector<std::string> ProcessWorker::kinds() const {
  std::vector<std::string> kinds;
  for (const KindRow& row : rows()) {
    const auto is_known = [this](std::string_view need) {
      return std::ranges::find(link_.kinds(), need) != link_.kinds().end();
    };
    if (std::ranges::all_of(row.needs, is_known)) kinds.emplace_back(row.kind);
  }
  return kinds;
}

wire::Join ProcessWorker::join(const plan::Terms& terms) {
  terms_ = terms;
  pretrained_.reset();
  remarks_.clear();
  const nlohmann::json header = {{"type", "join"},
                                 {"client", options_.name},
                                 {"terms", nlohmann::json::parse(plan::to_json_text(terms))},
                                 {"seed", seed_of(seeds())}};
  const nlohmann::json joined = link_.join(header, [this](std::istream&, const worker_process::FrameHead& head) {
    read_no_body(head);
    take_up(head.header);
  });
  require_model_of(terms);
  wire::Join join;
  join.num_examples = num_examples_;
  join.num_held_out = num_held_out_;
  join.num_classes = static_cast<std::uint32_t>(terms.task.num_classes);
  std::vector<std::int64_t> shape = terms.task.shape;
  if (joined.contains("shape")) shape = joined["shape"].get<std::vector<std::int64_t>>();
  join.shape = std::vector<std::uint32_t>(shape.begin(), shape.end());
  join.schema = schema_.digest();
  join.architecture = terms.architecture;
  join.shares_with_peers = options_.shares_with_peers;
  join.withholds_model = options_.withholds_model;
  if (const std::vector<std::string> classes = worker_process::texts_in(joined, "classes");
      !classes.empty() && classes != terms.samples.classes) {
    throw Error(Errc::data,
                fmt::format("the worker's classes are {}, the run's are {}: the same names in the same order "
                            "are needed, as label 0 is the first",
                            learn::list_text(classes), learn::list_text(terms.samples.classes)));
  }
  return join;
}

void ProcessWorker::take_up(const nlohmann::json& joined) {
  num_examples_ = static_cast<std::uint64_t>(worker_process::integer_in(joined, "examples", 0));
  num_held_out_ = static_cast<std::uint64_t>(worker_process::integer_in(joined, "held_out", 0));
  schema_ = worker_process::schema_in(joined, "model");
  remarks_.clear();
  for (const std::string& remark : worker_process::texts_in(joined, "remarks")) {
    if (remarks_.size() < max_remarks) remarks_.push_back(printable(remark, 500));
  }
  if (!joined.contains("shape")) return;
  const nlohmann::json& shape = joined["shape"];
  const bool is_shape = shape.is_array() && shape.size() <= learn::max_rank &&
                        std::ranges::all_of(shape, [](const nlohmann::json& extent) {
                          return extent.is_number_unsigned() &&
                                 extent.get<std::uint64_t>() <= static_cast<std::uint64_t>(learn::max_extent);
                        });
  if (!is_shape) throw Error(Errc::protocol, "'shape' in a 'joined' is no shape of a sample");
}

void ProcessWorker::require_model_of(const plan::Terms& terms) const {
  if (terms.model.is_stated() && terms.architecture != "state schema=" + schema_.digest()) {
    throw Error(Errc::data,
                fmt::format("the worker's model is not the run's: the names, types and shapes of its tensors are "
                            "others than in the server's file (model.name=state:FILE). The worker has {}",
                            words_on(schema_)));
  }
  if (!terms.model.is_built_in()) return;  // the server compares the schemas
  const learn::Schema expected = learn::make_model(terms.model, terms.task, terms.seeds().child("model"))->schema();
  if (const auto difference = schema_.difference_from(expected)) {
    throw Error(Errc::data,
                fmt::format("the worker's model is not the run's, '{}': {}", terms.architecture, *difference));
  }
}

learn::Schema ProcessWorker::schema_of(const learn::ModelSpec& spec) {
  // A silo's pre-trained model comes with its spec, be it the run's or another.
  if (plan::to_json_text(spec) == plan::to_json_text(terms_.model)) return schema_;
  throw Error(Errc::usage, fmt::format("the server asks for a model '{}'; a worker computes the run's model alone: the "
                                       "silo that pre-trains another one (own_model) cannot be rated here",
                                       spec.name));
}

std::string ProcessWorker::describe(const Assignment& assignment) const {
  if (assignment.kind == plan::task::train) {
    return fmt::format("round {}", plan::train_settings_from_json_text(assignment.settings).round);
  }
  const auto row = std::ranges::find(rows(), assignment.kind, &KindRow::kind);
  return row == rows().end() ? "" : std::string(row->words);
}

TaskResult ProcessWorker::perform(const Assignment& assignment, const TaskContext& context) {
  const auto row = std::ranges::find(rows(), assignment.kind, &KindRow::kind);
  if (row == rows().end()) {
    throw Error(Errc::protocol, "the server asks for the task " + quotation(assignment.kind) +
                                    ", which this client does not know and did not announce");
  }
  return (this->*row->perform)(assignment, context);
}

wire::PackedState ProcessWorker::state_from(const worker_process::WorkerRequest& request, const TaskContext& context,
                                            nlohmann::json* figures) {
  std::optional<wire::PackedState> state;
  const auto read = [this, &state](std::istream& in, const worker_process::FrameHead& head) {
    state = worker_process::read_frame_state(in, head, schema_);
  };
  nlohmann::json said = link_.ask(request, read, context.progress, context.stop);
  if (figures != nullptr) *figures = std::move(said);
  return std::move(*state);
}

learn::Tensor ProcessWorker::tensor_from(const worker_process::WorkerRequest& request, const std::string& name,
                                         std::uint64_t max_bytes, const TaskContext& context) {
  learn::Tensor tensor;
  const auto read = [&](std::istream& in, const worker_process::FrameHead& head) {
    tensor = worker_process::read_frame_tensor(in, head, name, max_bytes);
    if (tensor.scalar_type() != at::kFloat || tensor.dim() != 2) {
      throw Error(Errc::protocol,
                  fmt::format("'{}' is {} {}; float32 of two dimensions is expected", name,
                              learn::type_name(tensor.scalar_type()), learn::shape_text(tensor.sizes())));
    }
  };
  link_.ask(request, read, context.progress, context.stop);
  return tensor;
}

TaskResult ProcessWorker::train(const Assignment& assignment, const TaskContext& context) {
  const auto settings = plan::train_settings_from_json_text(assignment.settings);
  if (assignment.inputs.size() != 1) {
    throw Error(Errc::usage,
                "the run's strategy or local objective sends parts beside the model, which workers do not "
                "take");
  }
  worker_process::WorkerRequest request{.kind = "train",
                                        .inputs = {{"model", "", &assignment.input(plan::input::model).state}}};
  request.settings = {{"round", settings.round},
                      {"counted_round", settings.counted_round},
                      {"seed", seed_of(seeds().child("train").child(static_cast<std::uint64_t>(settings.round)))}};
  return {.state = state_from(request, context)};
}

TaskResult ProcessWorker::evaluate(const Assignment& assignment, const TaskContext& context) {
  const plan::EvaluateSettings settings = plan::evaluate_settings_from_json_text(assignment.settings);
  const Input& model = assignment.input(plan::input::model);
  worker_process::WorkerRequest request{.kind = "evaluate", .inputs = {{"model", model.owner, &model.state}}};
  if (settings.counts_scores) request.settings["scores"] = true;
  plan::EvaluationFigures figures;
  const auto read = [&](std::istream& in, const worker_process::FrameHead& head) {
    const std::int64_t classes = terms_.task.num_classes;
    figures = plan::evaluation_figures_from_json_text(head.header["figures"].dump(), classes, num_held_out_);
    if (head.num_body_bytes > 0) figures.counts.scores = scores_in(in, head, figures.counts.num_samples(), classes);
  };
  link_.ask(request, read, context.progress, context.stop);
  if (settings.counts_scores && !figures.counts.scores && figures.counts.num_samples() > 0 &&
      terms_.task.num_classes <= learn::max_scored_classes) {
    throw Error(Errc::usage,
                "the run counts samples by score (evaluation.scores, or validation.metric), and the worker's "
                "'evaluate' returns no logits to count");
  }
  figures.is_shown = settings.by_silo && options_.shows_metrics;
  std::string text = plan::to_json_text(figures);
  try {
    (void)plan::evaluation_figures_from_json_text(text, terms_.task.num_classes, num_held_out_);
  } catch (const Error& error) {
    throw Error(Errc::usage,
                fmt::format("the worker's logits are not of its own counts ('predicted' is the class with the "
                            "largest logit): {}",
                            error.what()));
  }
  return {.figures = std::move(text)};
}

const wire::PackedState& ProcessWorker::pretrained(const TaskContext& context) {
  if (pretrained_) return *pretrained_;
  worker_process::WorkerRequest request{
      .kind = "pretrain", .settings = {{"seed", seed_of(seeds().child("pretrain"))}}, .inputs = {}};
  wire::PackedState untrained;
  if (terms_.model.is_built_in()) {
    untrained = wire::PackedState(learn::make_model(terms_.model, terms_.task, seeds().child("model"))->state());
    request.inputs.push_back({"model", "", &untrained});
  }
  nlohmann::json figures;
  wire::PackedState state = state_from(request, context, &figures);
  pretraining_ = {.is_reused = false, .seconds = context.seconds()};
  const auto count = [&figures](const char* key) {
    const auto value = figures.find(key);
    return value != figures.end() && value->is_number_unsigned() ? value->get<std::int64_t>() : 0;
  };
  pretraining_.num_epochs = count("epochs");
  pretraining_.best_epoch = count("best_epoch");
  pretrained_ = std::move(state);
  return *pretrained_;
}

TaskResult ProcessWorker::pretrain(const Assignment& /*assignment*/, const TaskContext& context) {
  (void)pretrained(context);
  return {.figures = plan::to_json_text(pretraining_)};
}

void ProcessWorker::require_shared_model() const {
  if (options_.withholds_model) throw withheld_model();
}

TaskResult ProcessWorker::exchange(const Assignment& /*assignment*/, const TaskContext& context) {
  require_shared_model();
  return {.state = pretrained(context)};
}

wire::PackedState ProcessWorker::samples_of(const Input& input) const {
  return wire::PackedState::of_tensor("samples", given_samples(input, terms_));
}

learn::Tensor ProcessWorker::logits_on(const wire::PackedState& samples, const TaskContext& context) {
  const worker_process::WorkerRequest request{
      .kind = "logits", .inputs = {{"model", options_.name, &pretrained(context)}, {"samples", "", &samples}}};
  const std::int64_t count = samples.state().tensors().front().tensor.size(0);
  const auto bytes = static_cast<std::uint64_t>(count * terms_.task.num_classes) * sizeof(float);
  learn::Tensor logits = tensor_from(request, "logits", bytes, context);
  if (logits.size(0) != count || logits.size(1) != terms_.task.num_classes) {
    throw Error(Errc::data, fmt::format("the worker's logits are {}; {}x{} are expected",
                                        learn::shape_text(logits.sizes()), count, terms_.task.num_classes));
  }
  return logits;
}

learn::Tensor ProcessWorker::log_odds_on(const wire::PackedState& samples, const TaskContext& context) {
  const auto features_of = [&](std::string_view of) {
    worker_process::WorkerRequest request{
        .kind = "features", .settings = {{"of", of}}, .inputs = {{"model", options_.name, &pretrained(context)}}};
    if (of == "samples") request.inputs.push_back({"samples", "", &samples});
    return finite(tensor_from(request, "features", max_feature_bytes, context), "features").to(at::kDouble);
  };
  const learn::Tensor own = features_of("training");
  const learn::Tensor open = features_of("samples");
  if (own.size(1) != open.size(1) || open.size(0) != samples.state().tensors().front().tensor.size(0)) {
    throw Error(Errc::data,
                fmt::format("the worker's features are {} of its samples and {} of the public ones; as many "
                            "columns, and a row a sample, are expected",
                            learn::shape_text(own.sizes()), learn::shape_text(open.sizes())));
  }
  return learn::density_log_odds(own, open);
}

TaskResult ProcessWorker::logits(const Assignment& assignment, const TaskContext& context) {
  require_shared_model();
  const wire::PackedState samples = samples_of(assignment.input(plan::input::samples));
  return {.state = wire::PackedState::of_tensor("logits", logits_on(samples, context))};
}

TaskResult ProcessWorker::densities(const Assignment& assignment, const TaskContext& context) {
  require_shared_model();
  const wire::PackedState samples = samples_of(assignment.input(plan::input::samples));
  return {.state = wire::PackedState::of_tensor("log_odds", log_odds_on(samples, context))};
}

TaskResult ProcessWorker::answers(const Assignment& assignment, const TaskContext& context) {
  const plan::AnswerSettings settings = plan::answer_settings_from_json_text(assignment.settings);
  const wire::PackedState samples = samples_of(assignment.input(plan::input::samples));
  const learn::Tensor logits = finite(logits_on(samples, context), "logits").to(at::kDouble);
  const learn::Tensor log_odds = settings.weighs_by_density ? log_odds_on(samples, context) : learn::Tensor();
  return {.state = wire::PackedState::of_tensor(
              "answers", weighted_answers(logits, log_odds, settings, static_cast<std::int64_t>(num_examples_)))};
}

TaskResult ProcessWorker::distill(const Assignment& assignment, const TaskContext& context) {
  const learn::KdSetting setting = plan::kd_setting_from_json_text(assignment.settings);
  worker_process::WorkerRequest request{.kind = "distill"};
  request.settings = {{"temperature", setting.temperature},
                      {"alpha", setting.alpha},
                      {"seed", seed_of(terms_.seeds().child("consolidation"))}};
  for (const Input& input : assignment.inputs) {
    if (input.form.model) (void)schema_of(*input.form.model);
    request.inputs.push_back({input.name, input.owner, &input.state});
  }
  return {.state = state_from(request, context)};
}

}  // namespace headstart::client
