#include "server/record/metrics_record.hpp"

#include <cmath>
#include <optional>

#include "shared/learn/metrics/metric.hpp"

namespace headstart::server {

namespace {

using learn::Evaluation;
using learn::Metric;
using learn::MetricKind;
using nlohmann::json;

json or_null(const std::optional<double>& value) { return value && std::isfinite(*value) ? json(*value) : json(); }

template <class OfClass>
json by_class(const Evaluation& evaluation, const OfClass& of_class) {
  json list = json::array();
  for (std::int64_t c = 0; c < std::ssize(evaluation.total); ++c) list.push_back(or_null(of_class(c)));
  return list;
}

json by_class(const Evaluation& evaluation, MetricKind kind) {
  return by_class(evaluation, [&](std::int64_t c) { return learn::class_metric(kind, evaluation, c); });
}

/// A row for each true class.
json matrix_of(const learn::ScoreCounts& scores) {
  json rows = json::array();
  const std::int64_t num_classes = scores.num_classes();
  for (auto row = scores.confusion.begin(); row != scores.confusion.end(); row += num_classes) {
    rows.push_back(std::vector<std::int64_t>(row, row + num_classes));
  }
  return rows;
}

}  // namespace

json metrics_record(const Evaluation& evaluation) {
  const auto value_of = [&](MetricKind kind) { return or_null(Metric{kind, {}}.value(evaluation)); };
  json record = {{"samples", evaluation.num_samples()},
                 {"accuracy", value_of(MetricKind::accuracy)},
                 {"balanced_accuracy", value_of(MetricKind::balanced_accuracy)},
                 {"f1", value_of(MetricKind::f1)},
                 {"log_loss", value_of(MetricKind::log_loss)},
                 {"class_recall", by_class(evaluation, MetricKind::recall)},
                 {"class_precision", by_class(evaluation, MetricKind::precision)},
                 {"class_f1", by_class(evaluation, MetricKind::f1)}};
  if (evaluation.scores || !evaluation.exact_auc.empty()) {
    record["auc"] = value_of(MetricKind::auc);
    record["auc_error"] = or_null(learn::mean_auc_error(evaluation));
    record["class_auc"] = by_class(evaluation, MetricKind::auc);
    record["class_auc_error"] = by_class(evaluation, [&](std::int64_t c) { return learn::auc_error(evaluation, c); });
  }
  if (evaluation.scores) {
    record["calibration_error"] = value_of(MetricKind::calibration_error);
    record["confusion"] = matrix_of(*evaluation.scores);
  }
  return record;
}

json own_record(const learn::OwnMetrics& own) {
  json record = json::object();
  for (const auto& [name, metric] : own) {
    if (metric.weight > 0) record[name] = metric.value;
  }
  return record;
}

}  // namespace headstart::server
