// Metrics as Prometheus reads them: text exposition, format 0.0.4. The serialiser is prometheus-cpp's.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "shared/net/http.hpp"

namespace headstart::net {

/// Families with their values, in the order in which they are begun.
class MetricFamilies {
 public:
  enum class Type { gauge, counter };
  using Labels = std::vector<std::pair<std::string, std::string>>;

  MetricFamilies();
  ~MetricFamilies();
  MetricFamilies(const MetricFamilies&) = delete;
  MetricFamilies& operator=(const MetricFamilies&) = delete;

  /// The values added next belong to this family. The name of a counter ends in _total.
  void begin(const std::string& name, const std::string& help, Type type);
  void add(double value, const Labels& labels = {});
  /// A family of one value.
  void gauge(const std::string& name, const std::string& help, double value);
  /// The same where there is a value.
  void gauge(const std::string& name, const std::string& help, std::optional<double> value);
  void counter(const std::string& name, const std::string& help, double value);

  /// Families without a value are left out.
  [[nodiscard]] std::string text() const;

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

/// The answer to GET /metrics.
HttpAnswer metrics_answer(std::string text);

}  // namespace headstart::net
