#include "server/operations/phase.hpp"

#include <set>

#include <doctest/doctest.h>

namespace headstart::server {
namespace {

TEST_CASE("phase: a round, a client and what a strategy does stand in the words, and in no label") {
  CHECK(words_of({}) == "lobby");
  CHECK(words_of({PhaseKind::training, 7}) == "round 7");
  CHECK(words_of({PhaseKind::evaluation, 7}) == "round 7: evaluation at the clients");
  CHECK(words_of({PhaseKind::finishing, 7, "distillation"}) == "round 7: distillation");
  CHECK(words_of({PhaseKind::client_consolidation, 0, "st-mary"}) == "consolidation at st-mary");
  CHECK(words_of({PhaseKind::statistics}) == "normalisation statistics");
  CHECK(words_of({PhaseKind::describing}) == "statistics of the features");
  std::set<std::string_view> labels;
  for (int kind = 0; kind <= static_cast<int>(PhaseKind::other); ++kind) {
    labels.insert(label_of(static_cast<PhaseKind>(kind)));
  }
  CHECK_MESSAGE(labels.size() == static_cast<std::size_t>(PhaseKind::other) - 1, "the three of a round share one");
}

TEST_CASE("phase: what had to do without a client reads as recorded, words of other versions included") {
  for (const std::string words :
       {"lobby", "return", "local pre-training", "exchange of models", "rating of the models", "average of the models",
        "statistics", "consolidation", "rating of the seed", "evaluation", "round 7", "round 0"}) {
    CAPTURE(words);
    const Phase phase = phase_from(words);
    CHECK(phase.kind != PhaseKind::other);
    CHECK(recorded(phase) == words);
  }
  CHECK((phase_from("round 12") == Phase{PhaseKind::training, 12}));
  for (const std::string words : {"", "pretraining", "round ", "round 07", "round 1e3", "round 99999999999999999999",
                                  "round 7: evaluation at the clients", "other"}) {
    CAPTURE(words);
    CHECK(phase_from(words).kind == PhaseKind::other);
    CHECK(recorded(phase_from(words)) == words);
    CHECK(words_of(phase_from(words)) == words);
  }
  CHECK(recorded({PhaseKind::client_consolidation, 0, "st-mary"}) == "consolidation");
  CHECK(recorded({PhaseKind::evaluation, 7}) == "evaluation");
}

}  // namespace
}  // namespace headstart::server
