#include "server/operations/live_view.hpp"

#include <sstream>

#include <doctest/doctest.h>

namespace headstart::server {
namespace {

struct Watched {
  std::ostringstream out;
  TimePoint now{};
  LiveView view;
  explicit Watched(ViewStyle style) : view(out, style, [this] { return now; }) {}
};

TEST_CASE("plain view: whole lines, progress every ten seconds, no control characters") {
  Watched watched(ViewStyle::plain);
  watched.view.on_lobby({"a"}, 2);
  watched.view.on_progress("a", 10, 10);  // before there is a phase
  watched.view.on_phase({PhaseKind::pretraining}, 2);
  watched.view.on_progress("a", 50, 100);
  CHECK(watched.out.str() == "waiting for clients: 1 of 2\nlocal pre-training (2 clients)\n");
  watched.now += std::chrono::seconds(10);
  watched.view.on_progress("b", 50, 100);
  CHECK(watched.out.str().find(
            "local pre-training  [############............]  50%  0/2 clients done  10 samples/s  0:10 left\n") !=
        std::string::npos);
  watched.view.on_note("silo-1: the connection is lost (\x1b[2Jbye\n\u009b)");
  CHECK(
      watched.out.str().ends_with("note: silo-1: the connection is lost (?[2Jbye ?"
                                  "?)\n"));
  CHECK(watched.out.str().find('\x1b') == std::string::npos);
}

TEST_CASE("terminal view: one status line that notes and rounds push up") {
  Watched watched(ViewStyle::terminal);
  watched.view.on_phase({PhaseKind::training, 1}, 2);
  watched.now += std::chrono::seconds(1);
  watched.view.on_progress("a", 100, 100);
  CHECK(watched.out.str().ends_with(
      "round 1  [############............]  50%  1/2 clients done  100 samples/s  0:01 left"));
  watched.view.on_round({.round = 1,
                         .num_rounds = 20,
                         .accuracy = 0.8125,
                         .loss = 0.5,
                         .federated_accuracy = {},
                         .seconds = 2,
                         .num_bytes = 18'000'000,
                         .num_updates = 2,
                         .next_target = 0.85});
  CHECK(watched.out.str().ends_with(
      "\r\x1b[2Kround 1/20  accuracy 81.25%  loss 0.5000  next target 85.00%  2 updates  18.0 MB  2.0 s\n"));
}

TEST_CASE("a round's line has the metric that decides, where it is not accuracy") {
  Watched watched(ViewStyle::plain);
  RoundView round{.round = 2, .num_rounds = 5};
  round.validation = "recall:1 0.4250";
  watched.view.on_round(round);
  CHECK(watched.out.str() == "round 2/5  recall:1 0.4250 by validation  0 updates  0.0 kB  0.0 s\n");
}

}  // namespace
}  // namespace headstart::server
