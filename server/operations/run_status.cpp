#include "server/operations/run_status.hpp"

#include <algorithm>

namespace headstart::server {

void StatusBoard::report(RunStatus& status) const {
  status.phase = phase_;
  status.phase_seconds = phase_began_ ? seconds_between(*phase_began_, clock_()) : 0;
  double done = 0;
  for (const auto& [part, share] : parts_) done += share;
  status.progress = done / static_cast<double>(std::max({num_parts_, parts_.size(), std::size_t{1}}));
  status.parts = parts_;
  status.round = round_.round;
  status.num_rounds = round_.num_rounds;
  status.accuracy = round_.accuracy;
  status.loss = round_.loss;
  status.federated_accuracy = round_.federated_accuracy;
  status.num_refused = num_refused_;
}

void StatusBoard::on_lobby(const std::vector<std::string>& present, std::size_t expected) {
  if (!phase_began_) phase_began_ = clock_();
  next_.on_lobby(present, expected);
}

void StatusBoard::on_phase(const Phase& phase, std::size_t num_parts) {
  phase_ = phase;
  phase_began_ = clock_();
  num_parts_ = num_parts;
  parts_.clear();
  next_.on_phase(phase, num_parts);
}

void StatusBoard::on_progress(const std::string& part, std::uint64_t done, std::uint64_t total) {
  parts_[part] = total == 0 ? 0 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  next_.on_progress(part, done, total);
}

void StatusBoard::on_round(const RoundView& round) {
  round_ = round;
  next_.on_round(round);
}

void StatusBoard::on_refusal(RefusalCode code) {
  ++num_refused_;
  next_.on_refusal(code);
}

}  // namespace headstart::server
