#include "shared/net/metric_families.hpp"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

namespace headstart::net {

struct MetricFamilies::Families {
  std::vector<prometheus::MetricFamily> all;
};

MetricFamilies::MetricFamilies() : families_(std::make_unique<Families>()) {}
MetricFamilies::~MetricFamilies() = default;

void MetricFamilies::begin(const std::string& name, const std::string& help, Type type) {
  using prometheus::MetricType;
  families_->all.push_back({name, help, type == Type::gauge ? MetricType::Gauge : MetricType::Counter, {}});
}

void MetricFamilies::add(double value, const Labels& labels) {
  prometheus::ClientMetric metric;
  for (const auto& [name, text] : labels) metric.label.push_back({name, text});
  metric.gauge.value = value;
  metric.counter.value = value;
  families_->all.back().metric.push_back(std::move(metric));
}

void MetricFamilies::gauge(const std::string& name, const std::string& help, double value) {
  begin(name, help, Type::gauge);
  add(value);
}
void MetricFamilies::gauge(const std::string& name, const std::string& help, std::optional<double> value) {
  if (value) gauge(name, help, *value);
}
void MetricFamilies::counter(const std::string& name, const std::string& help, double value) {
  begin(name, help, Type::counter);
  add(value);
}

std::string MetricFamilies::text() const {
  // A family without a value would be a comment about nothing.
  std::vector<prometheus::MetricFamily> filled = families_->all;
  std::erase_if(filled, [](const prometheus::MetricFamily& family) { return family.metric.empty(); });
  return prometheus::TextSerializer().Serialize(filled);
}

HttpAnswer metrics_answer(std::string text) {
  return {.content_type = "text/plain; version=0.0.4; charset=utf-8", .body = std::move(text)};
}

}  // namespace headstart::net
