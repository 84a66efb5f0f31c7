#include "shared/plan/tasks.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include <fmt/format.h>

#include "shared/learn/distill/experts.hpp"
#include "shared/plan/from_peer.hpp"
#include "shared/plan/terms.hpp"

namespace headstart::plan {

namespace {

constexpr double max_rounds = 4294967295.0;

void declare_fields(Fields& fields, TrainSettings& settings) {
  fields.integer("round", settings.round, "Round, from 1.", {1, max_rounds});
  fields.integer("counted_round", settings.counted_round, "Last round whose result counts.", {0, max_rounds});
}

void declare_fields(Fields& fields, learn::KdSetting& setting) {
  fields.number("temperature", setting.temperature, "Temperature of the distillation.",
                {std::numeric_limits<double>::min(), std::numeric_limits<double>::max()});
  fields.number("alpha", setting.alpha, "Weight of the distillation term.", {0, 1});
}

void declare_fields(Fields& fields, Pretraining& figures) {
  fields.flag("reused", figures.is_reused, "Taken from the client's store.");
  fields.number("seconds", figures.seconds, "Duration.", {0, std::numeric_limits<double>::max()});
  fields.integer("epochs", figures.num_epochs, "Epochs trained.", {0, max_rounds});
  fields.integer("best_epoch", figures.best_epoch, "The epoch that is kept.", {0, max_rounds});
}

void declare_fields(Fields& fields, HeadSumSettings& settings) {
  fields.integer("min_samples", settings.min_samples, "Least samples of a class.", {1, 1e9});
  fields.flag("evaluates", settings.evaluates, "Whether the head is measured on the held-out samples.");
}

void declare_fields(Fields& fields, AnswerSettings& settings) {
  fields.number("temperature", settings.temperature, "Temperature of the answers.",
                {std::numeric_limits<double>::min(), std::numeric_limits<double>::max()});
  fields.integer("bits", settings.bits, "Width of an answer.", {12, 16});
  fields.flag("weighs_by_density", settings.weighs_by_density, "Whether answers count by how familiar a sample is.");
  fields.integer("most_examples", settings.most_examples, "Training samples that an answer's factor is relative to.",
                 {0, 0x1p40});
}

/// What an evaluation says, with the loss as JSON can say it.
struct Counts {
  std::vector<std::int64_t> correct, total, predicted;
  double loss_sum = 0;
  bool is_infinite = false;
};

void declare_fields(Fields& fields, Counts& counts) {
  const Bounds bounds{0, 0x1p40};
  fields.integers("correct", counts.correct, "Right ones per class.", bounds);
  fields.integers("total", counts.total, "Samples per class.", bounds);
  fields.integers("predicted", counts.predicted, "Samples per predicted class.", bounds);
  fields.number("loss_sum", counts.loss_sum, "Sum of the cross-entropies.", {0, std::numeric_limits<double>::max()});
  fields.flag("diverged", counts.is_infinite, "The loss is infinite.");
}

template <class Value>
std::string text_of(Value value) {
  Fields fields;
  declare_fields(fields, value);
  return fields.resolved().dump();
}

template <class Value>
Value value_of(const std::string& text, std::string_view name, std::initializer_list<std::string_view> required) {
  Value value;
  load_from_peer(
      text, name, [&](Fields& fields) { declare_fields(fields, value); }, required);
  return value;
}

constexpr std::string_view tensors_key = "tensors";
constexpr std::size_t max_dimensions = 8;
constexpr std::uint64_t max_input_bytes = std::uint64_t{1} << 40;

learn::TensorSpec tensor_from_json_text(const std::string& text) {
  std::string name, type;
  std::vector<std::int64_t> shape;
  const auto declare = [&](Fields& fields) {
    fields.text("name", name, "Name.");
    fields.text("type", type, "Type, as safetensors names it.");
    fields.integers("shape", shape, "Shape.", {0, 0x1p40});
  };
  load_from_peer(text, "the form of an input", declare, {"name", "type", "shape"});
  const auto dtype = learn::dtype_of(type);
  if (!dtype || name.empty())
    throw Error(Errc::protocol, "the form of an input: a tensor without a known type or name");
  double num_bytes = 8;
  for (const std::int64_t size : shape) num_bytes *= static_cast<double>(size);
  if (shape.size() > max_dimensions || num_bytes > static_cast<double>(max_input_bytes)) {
    throw Error(Errc::protocol, fmt::format("the form of an input: a tensor of {} dimensions and up to {} bytes; at "
                                            "most {} and {} are taken",
                                            shape.size(), num_bytes, max_dimensions, max_input_bytes));
  }
  return {printable(name, max_error_bytes), *dtype, shape};
}

std::vector<learn::TensorSpec> tensors_of(const nlohmann::json& form) {
  std::vector<learn::TensorSpec> tensors;
  std::uint64_t num_bytes = 0;
  std::set<std::string> names;
  for (const nlohmann::json& tensor : form.at(tensors_key)) {
    tensors.push_back(tensor_from_json_text(tensor.dump()));
    num_bytes += tensors.back().num_bytes();
    if (!names.insert(tensors.back().name).second || num_bytes > max_input_bytes) {
      throw Error(Errc::protocol, "the form of an input: a name twice, or more bytes than are taken");
    }
  }
  return tensors;
}

}  // namespace

std::string to_json_text(const Form& form) {
  if (form.model) return to_json_text(*form.model);
  if (form.tensors.empty()) return {};
  nlohmann::json tensors = nlohmann::json::array();
  for (const learn::TensorSpec& tensor : form.tensors) {
    tensors.push_back({{"name", tensor.name}, {"type", learn::dtype_name(tensor.dtype)}, {"shape", tensor.shape}});
  }
  return nlohmann::json{{tensors_key, std::move(tensors)}}.dump();
}

Form form_from_json_text(const std::string& text) {
  if (text.empty()) return {};
  nlohmann::json form;
  try {
    form = parse_json(text, "the form of an input");
  } catch (const Error& error) {
    throw Error(Errc::protocol, printable(error.what(), max_error_bytes));
  }
  if (!form.is_object() || !form.contains(tensors_key)) return {.model = spec_from_json_text(text), .tensors = {}};
  if (form.size() != 1 || !form[tensors_key].is_array() || form[tensors_key].empty()) {
    throw Error(Errc::protocol, "the form of an input: expected a list of tensors and nothing beside it");
  }
  return {.model = {}, .tensors = tensors_of(form)};
}

std::string to_json_text(const TrainSettings& settings) { return text_of(settings); }
std::string to_json_text(const learn::KdSetting& setting) { return text_of(setting); }
std::string to_json_text(const Pretraining& figures) { return text_of(figures); }

TrainSettings train_settings_from_json_text(const std::string& text) {
  return value_of<TrainSettings>(text, "settings of a training task", {"round"});
}
learn::KdSetting kd_setting_from_json_text(const std::string& text) {
  return value_of<learn::KdSetting>(text, "settings of a distillation task", {"temperature", "alpha"});
}
Pretraining pretraining_from_json_text(const std::string& text) {
  return value_of<Pretraining>(text, "figures of a pre-training", {"reused", "seconds"});
}

std::string to_json_text(const learn::Evaluation& figures) {
  const bool is_infinite = !std::isfinite(figures.loss_sum);
  return text_of(
      Counts{figures.correct, figures.total, figures.predicted, is_infinite ? 0 : figures.loss_sum, is_infinite});
}

learn::Evaluation evaluation_from_json_text(const std::string& text, std::int64_t num_classes,
                                            std::uint64_t num_held_out) {
  const auto counts = value_of<Counts>(text, "figures of an evaluation", {"correct", "total", "predicted", "loss_sum"});
  const auto& [correct, total, predicted, loss_sum, is_infinite] = counts;
  const auto refuse = [](const std::string& what) { throw Error(Errc::protocol, "figures of an evaluation: " + what); };
  for (const auto* list : {&correct, &total, &predicted}) {
    if (std::ssize(*list) != num_classes) {
      refuse(fmt::format("counts of {} classes; the run has {}", list->size(), num_classes));
    }
  }
  std::uint64_t num_samples = 0, num_predicted = 0;
  for (std::size_t c = 0; c < total.size(); ++c) {
    num_samples += static_cast<std::uint64_t>(total[c]);
    num_predicted += static_cast<std::uint64_t>(predicted[c]);
    if (correct[c] > std::min(total[c], predicted[c]) || num_samples > num_held_out || num_predicted > num_held_out) {
      refuse(fmt::format("impossible counts for class {}; the client announced {} held-out samples", c, num_held_out));
    }
  }
  if (num_samples != num_predicted) refuse("more or fewer predictions than samples");
  if (num_samples == 0 && (loss_sum > 0 || is_infinite)) refuse("a loss of nothing");
  if (is_infinite && loss_sum > 0) refuse("a loss that is finite and infinite");
  return {correct, total, predicted, is_infinite ? std::numeric_limits<double>::infinity() : loss_sum};
}

std::string to_json_text(const HeadSumSettings& settings) { return text_of(settings); }
HeadSumSettings head_sum_settings_from_json_text(const std::string& text) {
  return value_of<HeadSumSettings>(text, "settings of a sum for the head", {"min_samples", "evaluates"});
}

std::string to_json_text(const AnswerSettings& settings) { return text_of(settings); }
AnswerSettings answer_settings_from_json_text(const std::string& text) {
  const auto settings = value_of<AnswerSettings>(text, "settings of answers",
                                                 {"temperature", "bits", "weighs_by_density", "most_examples"});
  if (std::ranges::find(learn::answer_widths, settings.bits) != std::end(learn::answer_widths)) return settings;
  throw Error(Errc::protocol,
              fmt::format("settings of answers: answers of {} bits; 12 or 16 are known", settings.bits));
}

std::string to_json_text(const HeadSumFigures& figures) {
  nlohmann::json document = {{"samples", figures.num_samples}};
  if (figures.held_out) document["held_out"] = to_json_text(*figures.held_out);
  return document.dump();
}

std::string to_json_text(const DescribeFigures& figures) {
  return nlohmann::json{{"samples", figures.num_samples}, {"range", figures.has_range}}.dump();
}

DescribeFigures describe_figures_from_json_text(const std::string& text, std::int64_t num_examples) {
  DescribeFigures figures;
  const auto declare = [&](Fields& fields) {
    fields.integer("samples", figures.num_samples, "Samples described.", {0, static_cast<double>(num_examples)});
    fields.flag("range", figures.has_range, "Whether least and greatest values are said.");
  };
  load_from_peer(text, "figures of a description", declare, {"samples", "range"});
  return figures;
}

HeadSumFigures head_sum_figures_from_json_text(const std::string& text, std::int64_t num_classes,
                                               std::int64_t num_examples, std::uint64_t num_held_out) {
  HeadSumFigures figures;
  std::string held_out;
  const auto declare = [&](Fields& fields) {
    fields.integer("samples", figures.num_samples, "Samples in the sum.", {1, static_cast<double>(num_examples)});
    fields.text("held_out", held_out, "Counts on the held-out samples.");
  };
  load_from_peer(text, "figures of a sum for the head", declare, {"samples"});
  if (!held_out.empty()) figures.held_out = evaluation_from_json_text(held_out, num_classes, num_held_out);
  return figures;
}

}  // namespace headstart::plan
