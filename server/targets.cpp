#include "server/targets.hpp"

#include <algorithm>

#include "server/config.hpp"

namespace headstart::server {

Targets::Targets(const TargetOptions& options) {
  std::vector<double> accuracies = options.accuracies;
  for (const double fraction : options.fractions) accuracies.push_back(fraction * options.reference);
  std::ranges::sort(accuracies);
  accuracies.erase(std::ranges::unique(accuracies).begin(), accuracies.end());
  for (const double accuracy : accuracies) targets_.emplace_back().accuracy = accuracy;
}

void Targets::on_round(std::int64_t round, double accuracy, double seconds, std::uint64_t bytes) {
  for (Target& target : targets_) {
    if (target.is_reached() || accuracy < target.accuracy) continue;
    target.round = round;
    target.seconds = seconds;
    target.bytes = bytes;
  }
}

bool Targets::all_reached() const { return std::ranges::all_of(targets_, &Target::is_reached); }

double Targets::next() const {
  const auto open = std::ranges::find_if_not(targets_, &Target::is_reached);
  return open == targets_.end() ? 0 : open->accuracy;
}

nlohmann::json Targets::report() const {
  nlohmann::json list = nlohmann::json::array();
  for (const Target& target : targets_) {
    nlohmann::json entry = {
        {"accuracy", target.accuracy}, {"round", nullptr}, {"seconds", nullptr}, {"bytes", nullptr}};
    if (target.is_reached()) {
      entry["round"] = target.round;
      entry["seconds"] = target.seconds;
      entry["bytes"] = target.bytes;
    }
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace headstart::server
