#include "server/operations/phase.hpp"

#include <charconv>

#include <fmt/format.h>

namespace headstart::server {

namespace {

constexpr std::string_view round_prefix = "round ";

/// The recorded word of each kind that is not of one round.
std::string_view record_of(PhaseKind kind) {
  switch (kind) {
    case PhaseKind::lobby:
      return "lobby";
    case PhaseKind::absence:
      return "return";
    case PhaseKind::statistics:
      return "statistics";
    case PhaseKind::teaching:
    case PhaseKind::answering:
    case PhaseKind::teacher_fitting:
    case PhaseKind::consolidation:
    case PhaseKind::public_consolidation:
    case PhaseKind::client_consolidation:
      return "consolidation";
    case PhaseKind::evaluation:
      return "evaluation";
    case PhaseKind::describing:
    case PhaseKind::pretraining:
    case PhaseKind::exchange:
    case PhaseKind::rating:
    case PhaseKind::averaging:
    case PhaseKind::seed_rating:
    case PhaseKind::head_fitting:
    case PhaseKind::training:
    case PhaseKind::finishing:
    case PhaseKind::ensemble:
    case PhaseKind::other:
      return label_of(kind);
  }
  return label_of(kind);
}

}  // namespace

bool is_of_a_round(PhaseKind kind) {
  return kind == PhaseKind::training || kind == PhaseKind::finishing || kind == PhaseKind::evaluation;
}

std::string_view label_of(PhaseKind kind) {
  switch (kind) {
    case PhaseKind::lobby:
      return "lobby";
    case PhaseKind::absence:
      return "return";
    case PhaseKind::describing:
      return "statistics of the features";
    case PhaseKind::pretraining:
      return "local pre-training";
    case PhaseKind::exchange:
      return "exchange of models";
    case PhaseKind::rating:
      return "rating of the models";
    case PhaseKind::averaging:
      return "average of the models";
    case PhaseKind::statistics:
      return "normalisation statistics";
    case PhaseKind::teaching:
      return "teacher logits on the public set";
    case PhaseKind::answering:
      return "answers on the public set";
    case PhaseKind::teacher_fitting:
      return "teacher from sums";
    case PhaseKind::consolidation:
      return "consolidation";
    case PhaseKind::public_consolidation:
      return "consolidation on the public set";
    case PhaseKind::client_consolidation:
      return "consolidation at a client";
    case PhaseKind::seed_rating:
      return "rating of the seed";
    case PhaseKind::head_fitting:
      return "head from sums";
    case PhaseKind::training:
    case PhaseKind::finishing:
    case PhaseKind::evaluation:
      return "round";
    case PhaseKind::ensemble:
      return "ensemble of the local models, for the record";
    case PhaseKind::other:
      return "other";
  }
  return "other";
}

std::string words_of(const Phase& phase) {
  switch (phase.kind) {
    case PhaseKind::client_consolidation:
      return fmt::format("consolidation at {}", phase.place);
    case PhaseKind::training:
      return fmt::format("round {}", phase.round);
    case PhaseKind::finishing:
      return fmt::format("round {}: {}", phase.round, phase.place);
    case PhaseKind::evaluation:
      return fmt::format("round {}: evaluation at the clients", phase.round);
    case PhaseKind::other:
      return phase.place;
    default:
      return std::string(label_of(phase.kind));
  }
}

std::string recorded(const Phase& phase) {
  if (phase.kind == PhaseKind::other) return phase.place;
  if (phase.kind == PhaseKind::training) return fmt::format("{}{}", round_prefix, phase.round);
  return std::string(record_of(phase.kind));
}

Phase phase_from(const std::string& recorded) {
  for (const PhaseKind kind :
       {PhaseKind::lobby, PhaseKind::absence, PhaseKind::describing, PhaseKind::pretraining, PhaseKind::exchange,
        PhaseKind::rating, PhaseKind::averaging, PhaseKind::statistics, PhaseKind::consolidation,
        PhaseKind::seed_rating, PhaseKind::head_fitting, PhaseKind::evaluation}) {
    if (record_of(kind) == recorded) return {kind};
  }
  Phase phase{PhaseKind::training};
  const char* const end = recorded.data() + recorded.size();
  if (recorded.starts_with(round_prefix)) {
    const auto read = std::from_chars(recorded.data() + round_prefix.size(), end, phase.round);
    // "round 07" would not be written again as it was.
    if (read.ec == std::errc() && read.ptr == end && server::recorded(phase) == recorded) return phase;
  }
  return {PhaseKind::other, 0, recorded};
}

}  // namespace headstart::server
