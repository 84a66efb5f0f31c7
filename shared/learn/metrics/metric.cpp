#include "shared/learn/metrics/metric.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>

#include <fmt/format.h>

#include "shared/base/error.hpp"

namespace headstart::learn {

namespace {

std::size_t place(std::int64_t value) { return static_cast<std::size_t>(value); }

std::optional<double> share(std::int64_t part, std::int64_t all) {
  if (all == 0) return std::nullopt;
  return static_cast<double>(part) / static_cast<double>(all);
}

std::optional<double> precision_of(const Evaluation& evaluation, std::int64_t c) {
  const std::int64_t predicted = evaluation.predicted[place(c)];
  if (predicted == 0) return evaluation.total[place(c)] == 0 ? std::nullopt : std::optional(0.0);
  return share(evaluation.correct[place(c)], predicted);
}

std::optional<RocArea> area_of(const Evaluation& evaluation, std::int64_t c) {
  if (!evaluation.exact_auc.empty()) {
    const std::optional<double>& exact = evaluation.exact_auc[place(c)];
    return exact ? std::optional(RocArea{*exact, 0}) : std::nullopt;
  }
  return evaluation.scores ? evaluation.scores->auc(c) : std::nullopt;
}

/// Over the classes that have one.
template <class OfClass>
std::optional<double> mean_over_classes(const Evaluation& evaluation, const OfClass& of_class) {
  double sum = 0;
  double count = 0;
  for (std::int64_t c = 0; c < std::ssize(evaluation.total); ++c) {
    const std::optional<double> value = of_class(c);
    if (!value) continue;
    sum += *value;
    ++count;
  }
  return count == 0 ? std::nullopt : std::optional(sum / count);
}

bool may_have_class(MetricKind kind) {
  return kind == MetricKind::recall || kind == MetricKind::precision || kind == MetricKind::f1 ||
         kind == MetricKind::auc;
}

bool must_have_class(MetricKind kind) { return kind == MetricKind::recall || kind == MetricKind::precision; }

std::string_view word_of(MetricKind kind) {
  return std::ranges::find(metric_words, kind, &std::pair<MetricKind, std::string_view>::first)->second;
}

[[noreturn]] void refuse(const std::string& text, const std::string& why) {
  throw Error(Errc::usage, fmt::format("'{}' is no metric: {}", text, why));
}

struct Parts {
  MetricKind kind;
  std::string of_class;  ///< As it was written; empty: none.
};

Parts parts_of(const std::string& text) {
  const std::size_t colon = text.find(':');
  const std::string word = text.substr(0, colon);
  const std::string of_class = colon == std::string::npos ? "" : text.substr(colon + 1);
  const auto* const found = std::ranges::find(metric_words, word, &std::pair<MetricKind, std::string_view>::second);
  if (found == std::end(metric_words)) {
    refuse(text,
           "accuracy, balanced_accuracy, f1, auc, log_loss and calibration_error are, and recall:CLASS, "
           "precision:CLASS, f1:CLASS and auc:CLASS");
  }
  const MetricKind kind = found->first;
  if (must_have_class(kind) && of_class.empty()) refuse(text, fmt::format("name the class, {}:CLASS", word));
  if (colon != std::string::npos && !may_have_class(kind)) refuse(text, fmt::format("{} is of all classes", word));
  if (colon != std::string::npos && of_class.empty()) refuse(text, fmt::format("name the class, {}:CLASS", word));
  return {kind, of_class};
}

std::optional<std::int64_t> number_in(const std::string& text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

}  // namespace

std::optional<double> class_metric(MetricKind kind, const Evaluation& evaluation, std::int64_t c) {
  switch (kind) {
    case MetricKind::recall:
      return share(evaluation.correct[place(c)], evaluation.total[place(c)]);
    case MetricKind::precision:
      return precision_of(evaluation, c);
    case MetricKind::f1:
      return share(2 * evaluation.correct[place(c)], evaluation.total[place(c)] + evaluation.predicted[place(c)]);
    case MetricKind::auc: {
      const std::optional<RocArea> area = area_of(evaluation, c);
      return area ? std::optional(area->value) : std::nullopt;
    }
    case MetricKind::accuracy:
    case MetricKind::balanced_accuracy:
    case MetricKind::log_loss:
    case MetricKind::calibration_error:
      break;
  }
  throw Error(Errc::internal, fmt::format("{} is of all classes", word_of(kind)));
}

std::optional<double> auc_error(const Evaluation& evaluation, std::int64_t c) {
  const std::optional<RocArea> area = area_of(evaluation, c);
  return area ? std::optional(area->error) : std::nullopt;
}

std::optional<double> mean_auc_error(const Evaluation& evaluation) {
  return mean_over_classes(evaluation, [&](std::int64_t c) { return auc_error(evaluation, c); });
}

std::optional<double> Metric::value(const Evaluation& evaluation) const {
  if (of_class) return class_metric(kind, evaluation, *of_class);
  if (evaluation.num_samples() == 0) return std::nullopt;
  switch (kind) {
    case MetricKind::accuracy:
      return evaluation.accuracy();
    case MetricKind::balanced_accuracy:
      return evaluation.mean_class_accuracy();
    case MetricKind::log_loss:
      return evaluation.loss();
    case MetricKind::calibration_error:
      return evaluation.scores ? std::optional(evaluation.scores->calibration_error()) : std::nullopt;
    case MetricKind::f1:
    case MetricKind::auc:
    case MetricKind::recall:
    case MetricKind::precision:
      return mean_over_classes(evaluation, [&](std::int64_t c) { return class_metric(kind, evaluation, c); });
  }
  return std::nullopt;
}

double Metric::score(const Evaluation& evaluation) const {
  const std::optional<double> measured = value(evaluation);
  if (!measured) return 0;
  if (kind == MetricKind::log_loss) return std::exp(-*measured);
  return kind == MetricKind::calibration_error ? 1 - *measured : *measured;
}

double Metric::gain(const Evaluation& candidate, const Evaluation& other) const {
  const bool is_cost = kind == MetricKind::log_loss || kind == MetricKind::calibration_error;
  const double difference = value(candidate).value_or(0) - value(other).value_or(0);
  return is_cost ? -difference : difference;
}

bool Metric::is_better(const Evaluation& candidate, const Evaluation& best) const {
  const double of_candidate = score(candidate);
  const double of_best = score(best);
  return of_candidate > of_best || (of_candidate == of_best && candidate.loss() < best.loss());
}

std::string Metric::text() const {
  return of_class ? fmt::format("{}:{}", word_of(kind), *of_class) : std::string(word_of(kind));
}

Metric metric_of(const std::string& text, const std::vector<std::string>& classes) {
  const auto [kind, of_class] = parts_of(text);
  Metric metric{kind, std::nullopt};
  if (metric.needs_scores() && std::ssize(classes) > max_scored_classes) {
    throw Error(Errc::usage,
                fmt::format("{} needs scores of each class, which are counted for at most {} classes; there "
                            "are {}",
                            word_of(kind), max_scored_classes, classes.size()));
  }
  if (of_class.empty()) return metric;
  const auto named = std::ranges::find(classes, of_class);
  const std::optional<std::int64_t> number =
      named != classes.end() ? std::optional<std::int64_t>(named - classes.begin()) : number_in(of_class);
  if (!number || *number < 0 || *number >= std::ssize(classes)) {
    throw Error(Errc::usage,
                fmt::format("'{}': there is no class '{}'; name one of the {} classes, or its number, 0 to "
                            "{}",
                            text, of_class, classes.size(), classes.size() - 1));
  }
  metric.of_class = number;
  return metric;
}

void require_metric(const std::string& text) { (void)parts_of(text); }

}  // namespace headstart::learn
