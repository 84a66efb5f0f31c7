#include "server/run/targets.hpp"

#include <algorithm>
#include <cmath>

#include "server/config/server_config.hpp"

namespace headstart::server {

Targets::Targets(const TargetOptions& options) {
  std::vector<double> accuracies = options.accuracies;
  for (const double fraction : options.fractions) accuracies.push_back(fraction * options.reference);
  std::ranges::sort(accuracies);
  accuracies.erase(std::ranges::unique(accuracies).begin(), accuracies.end());
  for (const double accuracy : accuracies) targets_.emplace_back().accuracy = accuracy;
}

void Targets::on_start(double seconds, std::uint64_t bytes, bool needs_models) {
  start_seconds_ = seconds;
  start_bytes_ = bytes;
  needs_models_ = needs_models;
}

void Targets::on_round(std::int64_t round, double accuracy, double seconds, std::uint64_t bytes) {
  if (round > 0) round_bytes_.push_back(bytes - std::min(bytes, bytes_so_far_));
  bytes_so_far_ = bytes;
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

nlohmann::json Targets::charged_rounds(std::int64_t round) const {
  if (!needs_models_) return round;
  if (round_bytes_.empty()) return nullptr;
  std::vector<std::uint64_t> sorted = round_bytes_;
  std::ranges::sort(sorted);
  const std::size_t middle = sorted.size() / 2;
  const double median = sorted.size() % 2 == 1
                            ? static_cast<double>(sorted[middle])
                            : (static_cast<double>(sorted[middle - 1]) + static_cast<double>(sorted[middle])) / 2;
  if (median <= 0) return nullptr;
  const auto charge = static_cast<std::int64_t>(std::ceil(static_cast<double>(start_bytes_) / median));
  return round + std::max<std::int64_t>(1, charge);
}

nlohmann::json Targets::report() const {
  nlohmann::json list = nlohmann::json::array();
  for (const Target& target : targets_) {
    nlohmann::json entry = {
        {"accuracy", target.accuracy}, {"round", nullptr}, {"charged", nullptr}, {"uncharged", nullptr}};
    if (target.is_reached()) {
      entry["round"] = target.round;
      entry["charged"] = {
          {"rounds", charged_rounds(target.round)}, {"seconds", target.seconds}, {"bytes", target.bytes}};
      entry["uncharged"] = {{"rounds", target.round},
                            {"seconds", std::max(0.0, target.seconds - start_seconds_)},
                            {"bytes", target.bytes - std::min(target.bytes, start_bytes_)}};
    }
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace headstart::server
