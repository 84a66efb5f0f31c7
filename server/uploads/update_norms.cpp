#include "server/uploads/update_norms.hpp"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

namespace headstart::server {

namespace {

Norms::const_iterator largest_in(const Norms& norms) {
  return std::ranges::max_element(norms, {}, [](const auto& entry) { return entry.second; });
}

}  // namespace

double median_of(const Norms& norms) {
  if (norms.empty()) return 0;
  std::vector<double> values;
  for (const auto& [client, norm] : norms) values.push_back(norm);
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

std::optional<std::string> outlier_in(const Norms& norms) {
  if (norms.size() < 2) return std::nullopt;
  const auto largest = largest_in(norms);
  if (largest->second <= outlier_factor * median_of(norms)) return std::nullopt;
  return largest->first;
}

std::string largest_update_words(std::int64_t round, const Norms& norms) {
  if (norms.empty()) return "";
  const auto largest = largest_in(norms);
  return fmt::format(
      "the largest update in the model of round {} is {}'s, of L2 norm {:.6g}; the median of {} is {:.6g}", round,
      largest->first, largest->second, norms.size(), median_of(norms));
}

}  // namespace headstart::server
