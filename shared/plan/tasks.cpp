#include "shared/plan/tasks.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <span>

#include <fmt/format.h>

#include "shared/learn/distill/experts.hpp"
#include "shared/plan/from_peer.hpp"
#include "shared/plan/terms.hpp"
#include "shared/wire/messages.hpp"

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
  fields.flag("scores", settings.counts_scores, "Whether its scores are counted.");
}

void declare_fields(Fields& fields, EvaluateSettings& settings) {
  fields.flag("scores", settings.counts_scores, "Whether scores are counted.");
  fields.flag("by_silo", settings.by_silo, "Whether the figures may be recorded as the client's.");
}

void declare_fields(Fields& fields, AnswerSettings& settings) {
  fields.number("temperature", settings.temperature, "Temperature of the answers.",
                {std::numeric_limits<double>::min(), std::numeric_limits<double>::max()});
  fields.integer("bits", settings.bits, "Width of an answer.", {12, 16});
  fields.flag("weighs_by_density", settings.weighs_by_density, "Whether answers count by how familiar a sample is.");
  fields.integer("most_examples", settings.most_examples, "Training samples that an answer's factor is relative to.",
                 {0, 0x1p40});
}

void declare_fields(Fields& fields, KeepSettings& settings) {
  fields.integer("round", settings.round, "Round; 0: what round 1 starts from.", {0, max_rounds});
  fields.integer("num_rounds", settings.num_rounds, "Rounds of the run.", {0, max_rounds});
  fields.flag("is_best", settings.is_best, "The best so far by the run's validation.");
  fields.texts("took_part", settings.took_part, "Clients whose updates are in the model.");
}

/// What an evaluation says, with the loss as JSON can say it.
struct Counts {
  std::vector<std::int64_t> correct, total, predicted;
  double loss_sum = 0;
  bool is_infinite = false;
  learn::ScoreCounts scores;
  bool is_shown = false;
};

constexpr Bounds count_bounds{0, 0x1p40};

void declare_scores(Fields& fields, learn::ScoreCounts& scores) {
  fields.integers("confusion", scores.confusion, "Samples by true and predicted class.", count_bounds);
  fields.integers("positives", scores.positives, "Samples of each class by bin of its score.", count_bounds);
  fields.integers("negatives", scores.negatives, "Samples of other classes by bin of the same score.", count_bounds);
  fields.integers("answers", scores.answers, "Samples by bin of the answer's probability.", count_bounds);
  fields.integers("right", scores.right, "Right ones by the same bin.", count_bounds);
  fields.integers("confidence", scores.confidence, "Sums of these probabilities, in fixed point.", {0, 0x1p62});
}

void declare_fields(Fields& fields, Counts& counts) {
  fields.integers("correct", counts.correct, "Right ones per class.", count_bounds);
  fields.integers("total", counts.total, "Samples per class.", count_bounds);
  fields.integers("predicted", counts.predicted, "Samples per predicted class.", count_bounds);
  fields.number("loss_sum", counts.loss_sum, "Sum of the cross-entropies.", {0, std::numeric_limits<double>::max()});
  fields.flag("diverged", counts.is_infinite, "The loss is infinite.");
  declare_scores(fields, counts.scores);
  fields.flag("by_silo", counts.is_shown, "The figures may be recorded as this client's.");
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

namespace {

constexpr char own_key[] = "own";
constexpr std::size_t max_own_metrics = 32;
constexpr std::size_t max_own_name = 64;

[[noreturn]] void refuse_figures(const std::string& what) {
  throw Error(Errc::protocol, printable("figures of an evaluation: " + what, max_error_bytes));
}

/// Takes the metrics of the client's own out of `text`, which is left as it is where there are none.
learn::OwnMetrics take_own(std::string& text) {
  learn::OwnMetrics own;
  if (text.find(own_key) == std::string::npos) return own;
  nlohmann::json figures;
  try {
    figures = parse_json(text, "figures of an evaluation");
  } catch (const Error& error) {
    throw Error(Errc::protocol, printable(error.what(), max_error_bytes));
  }
  if (!figures.is_object() || !figures.contains(own_key)) return own;
  const nlohmann::json metrics = std::move(figures.at(own_key));
  figures.erase(own_key);
  text = figures.dump();
  if (!metrics.is_object() || metrics.size() > max_own_metrics) {
    refuse_figures(fmt::format("'own' is no object of at most {} metrics", max_own_metrics));
  }
  for (const auto& [name, metric] : metrics.items()) {
    const bool is_name = !name.empty() && name.size() <= max_own_name && std::ranges::all_of(name, [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
             c == '-';
    });
    if (!is_name) {
      refuse_figures(
          fmt::format("'{}' is no name of a metric: 1 to {} letters, digits, '_', '.' or '-'", name, max_own_name));
    }
    learn::OwnMetric& taken = own[name];
    load_from_peer(metric.dump(), fmt::format("figures of an evaluation, metric '{}'", name),
                   [&taken](Fields& fields) {
                     const double largest = std::numeric_limits<double>::max();
                     fields.number("value", taken.value, "Its value.", {-largest, largest});
                     fields.number("weight", taken.weight, "What it weighs.", {0, 0x1p53});
                   },
                   {"value", "weight"});
  }
  return own;
}

std::int64_t sum_of(std::span<const std::int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

/// Each count is at most 2^40, so that no sum of a list that fits a message overflows.
void require_confusion_of(const learn::Evaluation& counts, const std::vector<std::int64_t>& confusion) {
  const std::size_t num_classes = counts.total.size();
  if (confusion.size() != num_classes * num_classes) {
    refuse_figures(fmt::format("a confusion matrix of {} counts for {} classes", confusion.size(), num_classes));
  }
  for (std::size_t c = 0; c < num_classes; ++c) {
    std::int64_t num_predicted = 0;
    for (std::size_t row = 0; row < num_classes; ++row) num_predicted += confusion[row * num_classes + c];
    const bool adds_up = sum_of(std::span(confusion).subspan(c * num_classes, num_classes)) == counts.total[c] &&
                         num_predicted == counts.predicted[c] && confusion[c * num_classes + c] == counts.correct[c];
    if (!adds_up) refuse_figures(fmt::format("the confusion matrix does not add up to the counts of class {}", c));
  }
}

void require_histograms_of(const learn::Evaluation& counts, const learn::ScoreCounts& scores) {
  const std::size_t num_classes = counts.total.size();
  const std::size_t num_bins = num_classes == 0 ? 0 : scores.positives.size() / num_classes;
  const std::size_t most = static_cast<std::size_t>(learn::num_score_bins(std::ssize(counts.total)));
  const bool is_sound = scores.positives.size() == scores.negatives.size() &&
                        scores.positives.size() == num_bins * num_classes && num_bins >= 2 && num_bins <= most &&
                        std::has_single_bit(num_bins);
  if (!is_sound) {
    refuse_figures(fmt::format("scores in {} and {} counts for {} classes; 2 to {} bins each are known, a power of two",
                               scores.positives.size(), scores.negatives.size(), num_classes, most));
  }
  for (std::size_t c = 0; c < num_classes; ++c) {
    const auto of_class = [&](const std::vector<std::int64_t>& bins) {
      return sum_of(std::span(bins).subspan(c * num_bins, num_bins));
    };
    if (of_class(scores.positives) == counts.total[c] &&
        of_class(scores.negatives) == counts.num_samples() - counts.total[c]) {
      continue;
    }
    refuse_figures(fmt::format("the scores of class {} are not of all samples", c));
  }
}

void require_confidence_of(const learn::Evaluation& counts, const learn::ScoreCounts& scores) {
  const auto num_bins = static_cast<std::size_t>(learn::num_confidence_bins);
  for (const auto* list : {&scores.answers, &scores.right, &scores.confidence}) {
    if (list->size() != num_bins) {
      refuse_figures(fmt::format("{} bins of confidence; there are {}", list->size(), num_bins));
    }
  }
  if (sum_of(scores.answers) != counts.num_samples() || sum_of(scores.right) != sum_of(counts.correct)) {
    refuse_figures("the bins of confidence do not add up to the samples and to those that are right");
  }
  for (std::size_t m = 0; m < num_bins; ++m) {
    // Each probability was rounded.
    const double most = std::ldexp(static_cast<double>(scores.answers[m]), learn::confidence_fraction_bits);
    const double slack = static_cast<double>(scores.answers[m]);
    const double from = most * static_cast<double>(m) / static_cast<double>(num_bins) - slack;
    const double to = std::min(most, most * static_cast<double>(m + 1) / static_cast<double>(num_bins) + slack);
    const auto confidence = static_cast<double>(scores.confidence[m]);
    if (scores.right[m] <= scores.answers[m] && confidence >= from && confidence <= to) continue;
    refuse_figures(fmt::format("impossible counts in bin {} of confidence", m));
  }
}

/// None where there are none. Throws Error(protocol) where they are not of the samples of `counts`.
std::optional<learn::ScoreCounts> sound_scores(const learn::Evaluation& counts, learn::ScoreCounts scores) {
  const bool is_there = !scores.confusion.empty() || !scores.positives.empty() || !scores.negatives.empty() ||
                        !scores.answers.empty() || !scores.right.empty() || !scores.confidence.empty();
  if (!is_there) return std::nullopt;
  if (std::ssize(counts.total) > learn::max_scored_classes) {
    refuse_figures(fmt::format("scores of {} classes; they are counted for at most {}", counts.total.size(),
                               learn::max_scored_classes));
  }
  require_confusion_of(counts, scores.confusion);
  require_histograms_of(counts, scores);
  require_confidence_of(counts, scores);
  return scores;
}

learn::Evaluation sound_counts(const Counts& counts, std::int64_t num_classes, std::uint64_t num_held_out) {
  const std::vector<std::int64_t>& correct = counts.correct;
  const std::vector<std::int64_t>& total = counts.total;
  const std::vector<std::int64_t>& predicted = counts.predicted;
  for (const auto* list : {&correct, &total, &predicted}) {
    if (std::ssize(*list) != num_classes) {
      refuse_figures(fmt::format("counts of {} classes; the run has {}", list->size(), num_classes));
    }
  }
  std::uint64_t num_samples = 0, num_predicted = 0;
  for (std::size_t c = 0; c < total.size(); ++c) {
    num_samples += static_cast<std::uint64_t>(total[c]);
    num_predicted += static_cast<std::uint64_t>(predicted[c]);
    if (correct[c] > std::min(total[c], predicted[c]) || num_samples > num_held_out || num_predicted > num_held_out) {
      refuse_figures(
          fmt::format("impossible counts for class {}; the client announced {} held-out samples", c, num_held_out));
    }
  }
  if (num_samples != num_predicted) refuse_figures("more or fewer predictions than samples");
  if (num_samples == 0 && (counts.loss_sum > 0 || counts.is_infinite)) refuse_figures("a loss of nothing");
  if (counts.is_infinite && counts.loss_sum > 0) refuse_figures("a loss that is finite and infinite");
  const double loss_sum = counts.is_infinite ? std::numeric_limits<double>::infinity() : counts.loss_sum;
  return {.correct = correct, .total = total, .predicted = predicted, .loss_sum = loss_sum};
}

std::string figures_text(const EvaluationFigures& figures) {
  const learn::Evaluation& counts = figures.counts;
  const bool is_infinite = !std::isfinite(counts.loss_sum);
  Counts said{.correct = counts.correct,
              .total = counts.total,
              .predicted = counts.predicted,
              .loss_sum = is_infinite ? 0 : counts.loss_sum,
              .is_infinite = is_infinite,
              .scores = counts.scores.value_or(learn::ScoreCounts{}),
              .is_shown = figures.is_shown};
  Fields fields;
  declare_fields(fields, said);
  nlohmann::json document = fields.resolved();
  if (!counts.scores) {
    for (const char* key : {"confusion", "positives", "negatives", "answers", "right", "confidence"}) {
      document.erase(key);
    }
  }
  if (!figures.is_shown) document.erase("by_silo");
  for (const auto& [name, metric] : counts.own) {
    document[own_key][name] = {{"value", metric.value}, {"weight", metric.weight}};
  }
  return document.dump();
}

}  // namespace

std::string to_json_text(const EvaluateSettings& settings) {
  return settings.counts_scores || settings.by_silo ? text_of(settings) : std::string();
}

EvaluateSettings evaluate_settings_from_json_text(const std::string& text) {
  return text.empty() ? EvaluateSettings{} : value_of<EvaluateSettings>(text, "settings of an evaluation", {});
}

std::string to_json_text(const EvaluationFigures& figures) {
  // Figures of a head's sum hold them as a text, with a few bytes around it.
  constexpr std::size_t around = 1024;
  std::string text = figures_text(figures);
  EvaluationFigures coarser = figures;
  while (coarser.counts.scores && coarser.counts.scores->num_bins() > 2 &&
         text.size() + around > wire::Figures::max_size) {
    coarser.counts.scores->coarsen();
    text = figures_text(coarser);
  }
  return text;
}

std::string to_json_text(const learn::Evaluation& counts) { return to_json_text(EvaluationFigures{.counts = counts}); }

EvaluationFigures evaluation_figures_from_json_text(const std::string& text, std::int64_t num_classes,
                                                    std::uint64_t num_held_out) {
  std::string declared = text;
  learn::OwnMetrics own = take_own(declared);
  auto said = value_of<Counts>(declared, "figures of an evaluation", {"correct", "total", "predicted", "loss_sum"});
  EvaluationFigures figures{.counts = sound_counts(said, num_classes, num_held_out), .is_shown = said.is_shown};
  figures.counts.scores = sound_scores(figures.counts, std::move(said.scores));
  figures.counts.own = std::move(own);
  return figures;
}

learn::Evaluation evaluation_from_json_text(const std::string& text, std::int64_t num_classes,
                                            std::uint64_t num_held_out) {
  return evaluation_figures_from_json_text(text, num_classes, num_held_out).counts;
}

std::string to_json_text(const HeadSumSettings& settings) {
  HeadSumSettings copy = settings;
  Fields fields;
  declare_fields(fields, copy);
  nlohmann::json document = fields.resolved();
  if (!settings.counts_scores) document.erase("scores");  // a client that knows no such key does without
  return document.dump();
}
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

std::string to_json_text(const KeepSettings& settings) { return text_of(settings); }

KeepSettings keep_settings_from_json_text(const std::string& text) {
  return value_of<KeepSettings>(text, "the settings of a task 'keep'", {"round"});
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
