// What a run is at.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace headstart::server {

enum class PhaseKind : std::uint8_t {
  lobby,                 ///< Waiting for clients.
  absence,               ///< Waiting for the clients of a run that is resumed.
  describing,            ///< Silos describe their features, for what samples are normalised by.
  pretraining,           ///< Local pre-training.
  exchange,              ///< Pre-trained models are collected.
  rating,                ///< Pre-trained models are rated by the validation source.
  averaging,             ///< Pre-trained models are averaged.
  statistics,            ///< Clients re-estimate normalisation statistics.
  teaching,              ///< Teachers' logits on the public set.
  answering,             ///< Silos answer on the public set.
  teacher_fitting,       ///< A teacher's head is fitted by sums.
  consolidation,         ///< Distillation, wherever it is done.
  public_consolidation,  ///< Distillation on the public set.
  client_consolidation,  ///< Distillation at the client `place`.
  seed_rating,           ///< The distilled start is rated.
  head_fitting,          ///< The head of the start is fitted by sums.
  training,              ///< Training and aggregation of `round`.
  finishing,             ///< What the strategy does after the training of `round`; `place` says what, in words.
  evaluation,            ///< The model of `round` is measured at the clients.
  ensemble,              ///< The pre-trained models are measured together.
  other,                 ///< Of a journal of another version; `place` has its words.
};

struct Phase {
  PhaseKind kind = PhaseKind::lobby;
  std::int64_t round = 0;
  std::string place = {};

  friend bool operator==(const Phase&, const Phase&) = default;
};

/// One of those that each round goes through.
[[nodiscard]] bool is_of_a_round(PhaseKind kind);

/// For people: "round 7: evaluation at the clients", "consolidation at silo-3".
[[nodiscard]] std::string words_of(const Phase& phase);

/// One of a few words, for the label of a metric: a round's number or a client's name would make a series of each.
[[nodiscard]] std::string_view label_of(PhaseKind kind);

/// As the journal and summary.json name a phase that had to do without a client: "rating of the seed", "round 7".
[[nodiscard]] std::string recorded(const Phase& phase);
/// The reverse. Words that are none of these make a phase of kind `other`.
[[nodiscard]] Phase phase_from(const std::string& recorded);

}  // namespace headstart::server
