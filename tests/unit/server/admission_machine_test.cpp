#include "server/admission/admission_machine.hpp"

#include <set>

#include <doctest/doctest.h>

#include "tests/support/throws.hpp"

namespace headstart::server {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// Of samples whose values lie between 0 and `max`.
learn::SampleFigures figures_up_to(double max) {
  return {.stored = learn::Stored::float32,
          .num_samples = 60,
          .min = {0},
          .max = {max},
          .mean = {max / 2},
          .deviation = {max / 4}};
}

ClientInfo info_of(const std::string& name) {
  ClientInfo info;
  info.name = name;
  info.num_examples = 60;
  info.num_held_out = 6;
  return info;
}

/// A client of the right version that fits the run.
struct Peer {
  Greeting greeting = {.name = "silo-1",
                       .software = "headstart 1",
                       .version = 6,
                       .its_versions = "version 6",
                       .our_versions = "version 6",
                       .unknown_tasks = {}};
  std::string identity;
  bool is_listed = true;
  NameHolders holders;
  std::optional<Member> member;
  Joining joining = {
      .info = info_of("silo-1"), .architecture = "cnn", .schema = "schema", .misfit = {}, .figures = figures_up_to(1)};
  std::vector<std::string> present = {"silo-0"};

  void come_as(const std::string& name) {
    greeting.name = name;
    joining.info.name = name;
  }
};

/// A run that waits for two clients, and what is changed of it before the machine is made.
struct Situation {
  AdmissionCriteria criteria{.terms = {},
                             .schema_digest = "schema",
                             .figures = figures_up_to(1),
                             .model_bytes = 1000,
                             .num_late = 0,
                             .roster = {},
                             .num_newcomers = 0,
                             .max_violations = 3};
  Lobby lobby{2};
  std::function<void(AdmissionMachine&)> prepare = [](AdmissionMachine&) {};

  void resume_with(const std::string& name) { criteria.roster[name] = info_of(name); }
};

struct Outcome {
  std::optional<Place> place;  ///< Where it came in, or would have.
  std::optional<Refusal> refusal;
  Accepted accepted;
};

/// All questions that admission asks about one connection.
Outcome visit(AdmissionMachine& machine, const Peer& peer, TimePoint now = {}) {
  Outcome outcome;
  const Member* const member = peer.member ? &*peer.member : nullptr;
  const auto is_listed = [&peer](const std::string&) { return peer.is_listed; };
  outcome.refusal = machine.greet(peer.greeting, peer.identity, member != nullptr, is_listed);
  if (outcome.refusal) return outcome;
  const auto claimed = machine.claim(peer.greeting.name, peer.holders, now);
  if (const auto* refusal = std::get_if<Refusal>(&claimed)) return {{}, *refusal, {}};
  const auto placed = machine.place(peer.greeting.name, member);
  if (const auto* refusal = std::get_if<Refusal>(&placed)) return {{}, *refusal, {}};
  outcome.place = std::get<Place>(placed);
  const auto joined = machine.join(*outcome.place, peer.joining, member, peer.present);
  if (const auto* refusal = std::get_if<Refusal>(&joined)) {
    outcome.refusal = *refusal;
  } else {
    outcome.accepted = std::get<Accepted>(joined);
  }
  return outcome;
}

struct Row {
  const char* what;
  void (*change)(Situation&, Peer&);
  std::variant<Place, RefusalCode> expected;
  bool is_for_now = false;
};

// ---- runs at different times

void before_the_start(Situation&, Peer&) {}
void started(Situation& run, Peer&) { run.lobby.close(); }
void with_newcomers(Situation& run, Peer& peer) {
  started(run, peer);
  run.criteria.num_late = 1;
  run.prepare = [](AdmissionMachine& machine) { machine.open_for_late(); };
}
void in_farewell(Situation& run, Peer& peer) {
  started(run, peer);
  run.prepare = [](AdmissionMachine& machine) { machine.start_farewell(); };
}
void known(Situation& run, Peer& peer) {
  started(run, peer);
  peer.member = Member{info_of("silo-1"), 0};
}

const Row rows[] = {
    // Who comes in.
    {"before the start", before_the_start, Place::lobby},
    {"a resumed run waits for its clients",
     [](Situation& run, Peer&) {
       run.resume_with("silo-1");
       run.resume_with("silo-2");
     },
     Place::lobby},
    {"back to its session", known, Place::readmit},
    {"a client of a resumed run that comes after its start",
     [](Situation& run, Peer& peer) {
       started(run, peer);
       run.resume_with("silo-1");
     },
     Place::rejoined},
    {"between rounds", with_newcomers, Place::newcomer},
    {"a newcomer to a resumed run",
     [](Situation& run, Peer& peer) {
       with_newcomers(run, peer);
       run.resume_with("silo-2");
     },
     Place::newcomer},
    {"to a run that is over, by a client of it that this server has not seen",
     [](Situation& run, Peer& peer) {
       in_farewell(run, peer);
       run.resume_with("silo-1");
     },
     Place::farewell},
    {"to a run that is over, by a client that lost its connection",
     [](Situation& run, Peer& peer) {
       in_farewell(run, peer);
       peer.member = Member{info_of("silo-1"), 0};
     },
     Place::readmit},
    {"certified as what it calls itself", [](Situation&, Peer& peer) { peer.identity = "silo-1"; }, Place::lobby},

    // Who is refused for its first message.
    {"no version in common", [](Situation&, Peer& peer) { peer.greeting.version.reset(); }, RefusalCode::version},
    {"a name that is none", [](Situation&, Peer& peer) { peer.come_as("../etc"); }, RefusalCode::name},
    {"no name", [](Situation&, Peer& peer) { peer.come_as(""); }, RefusalCode::name},
    {"certified as another", [](Situation&, Peer& peer) { peer.identity = "silo-2"; }, RefusalCode::certificate},
    {"not on the list", [](Situation&, Peer& peer) { peer.is_listed = false; }, RefusalCode::not_listed},
    {"lacks tasks", [](Situation&, Peer& peer) { peer.greeting.unknown_tasks = {"train (5)"}; },
     RefusalCode::unknown_tasks},
    {"the server is being stopped",
     [](Situation& run, Peer&) { run.prepare = [](AdmissionMachine& machine) { machine.stop(); }; },
     RefusalCode::stopping, true},
    {"the run is over",
     [](Situation& run, Peer& peer) {
       known(run, peer);
       run.prepare = [](AdmissionMachine& machine) { machine.close(); };
     },
     RefusalCode::over},
    {"a stranger to a run that is over", in_farewell, RefusalCode::over},

    // Who is refused for its name.
    {"its name is in use", [](Situation&, Peer& peer) { peer.holders.alive_at = "192.0.2.7:50000"; },
     RefusalCode::name_taken, true},
    {"its name is just coming in", [](Situation&, Peer& peer) { peer.holders.is_joining = true; },
     RefusalCode::name_joining, true},
    {"its name holds a place already", [](Situation& run, Peer&) { (void)run.lobby.enter("silo-1"); },
     RefusalCode::name_taken, true},

    // Who is refused for want of a place.
    {"all places are taken",
     [](Situation& run, Peer&) {
       (void)run.lobby.enter("a");
       (void)run.lobby.enter("b");
     },
     RefusalCode::full, true},
    {"the run has started", started, RefusalCode::started},
    {"all newcomers' places are taken",
     [](Situation& run, Peer& peer) {
       with_newcomers(run, peer);
       run.criteria.num_newcomers = 1;
     },
     RefusalCode::started},
    {"a newcomer before the rounds",
     [](Situation& run, Peer& peer) {
       with_newcomers(run, peer);
       run.prepare = [](AdmissionMachine&) {};
     },
     RefusalCode::too_early, true},
    {"not of the run that is resumed", [](Situation& run, Peer&) { run.resume_with("silo-2"); },
     RefusalCode::not_of_the_run},
    {"not of the run that is resumed, which will take newcomers",
     [](Situation& run, Peer&) {
       run.resume_with("silo-2");
       run.criteria.num_late = 1;
     },
     RefusalCode::not_of_the_run, true},

    // Who is refused for what it did or brings.
    {"broke the protocol three times",
     [](Situation& run, Peer& peer) {
       known(run, peer);
       peer.member->num_violations = 3;
     },
     RefusalCode::conduct},
    {"broke the protocol twice",
     [](Situation& run, Peer& peer) {
       known(run, peer);
       peer.member->num_violations = 2;
     },
     Place::readmit},
    {"broke the protocol three times before the start, and was lost",
     [](Situation& run, Peer&) { run.prepare = [](AdmissionMachine& machine) { machine.forget("silo-1", 3); }; },
     RefusalCode::conduct},
    {"its own model is too large",
     [](Situation& run, Peer& peer) {
       run.criteria.terms.max_own_model = 1000;
       peer.joining.info.own_model.emplace();
     },
     RefusalCode::own_model},
    {"its own model is none", [](Situation&, Peer& peer) { peer.joining.info.own_model.emplace().name = "perceptron"; },
     RefusalCode::own_model},
    {"its own model is a script, which is not built here",
     [](Situation&, Peer& peer) { peer.joining.info.own_model.emplace().name = "script:/etc/passwd"; }, Place::lobby},
    {"does not fit the terms", [](Situation&, Peer& peer) { peer.joining.misfit = "no samples"; }, RefusalCode::misfit},
    {"does not fit the terms of a run that is over",
     [](Situation& run, Peer& peer) {
       in_farewell(run, peer);
       run.resume_with("silo-1");
       peer.joining.misfit = "no samples";
     },
     RefusalCode::misfit},
    {"built another model", [](Situation&, Peer& peer) { peer.joining.schema = "other"; }, RefusalCode::schema},
    {"its samples cannot be of the run", [](Situation&, Peer& peer) { peer.joining.figures = figures_up_to(255); },
     RefusalCode::samples},
    {"its samples cannot be of the run, which it is of already",
     [](Situation& run, Peer& peer) {
       run.resume_with("silo-1");
       peer.joining.figures = figures_up_to(255);
     },
     Place::lobby},
    {"says nothing of its samples", [](Situation&, Peer& peer) { peer.joining.figures.reset(); }, Place::lobby},
    {"returns with more samples",
     [](Situation& run, Peer& peer) {
       known(run, peer);
       peer.joining.info.num_examples = 61;
     },
     RefusalCode::changed},
    {"returns to a resumed run without its consent",
     [](Situation& run, Peer& peer) {
       run.resume_with("silo-1");
       peer.joining.info.shares_with_peers = true;
     },
     RefusalCode::changed},
};

TEST_CASE("admission: each peer comes in where it belongs, or is refused with a code") {
  std::set<RefusalCode> seen = {RefusalCode::unusable};  // no decision: what an error is reported with
  for (const Row& row : rows) {
    CAPTURE(row.what);
    Situation run;
    Peer peer;
    row.change(run, peer);
    AdmissionMachine machine(run.criteria, run.lobby);
    run.prepare(machine);
    const Outcome outcome = visit(machine, peer);
    if (const auto* place = std::get_if<Place>(&row.expected)) {
      CHECK_FALSE(outcome.refusal);
      CHECK(outcome.place == *place);
      continue;
    }
    REQUIRE(outcome.refusal);
    CHECK(outcome.refusal->code == std::get<RefusalCode>(row.expected));
    CHECK(outcome.refusal->is_for_now == row.is_for_now);
    CHECK_FALSE(outcome.refusal->words.empty());
    seen.insert(outcome.refusal->code);
  }
  seen.insert({check_went_on().code, RefusalCode::changed_samples});  // below
  for (int code = 0; code <= static_cast<int>(last_refusal_code); ++code) {
    CAPTURE(code);
    CHECK(seen.contains(static_cast<RefusalCode>(code)));
  }
}

TEST_CASE("admission: what is wrong first is said, and the list is not read for a peer that is refused anyway") {
  Lobby lobby(2);
  const AdmissionMachine machine({}, lobby);
  const auto damaged = [](const std::string&) -> bool { throw Error(Errc::data, "damaged"); };
  Peer peer;
  CHECK(test::code_of([&] { (void)machine.greet(peer.greeting, "", false, damaged); }) == Errc::data);
  peer.identity = "silo-2";
  peer.greeting.unknown_tasks = {"train (5)"};
  CHECK(machine.greet(peer.greeting, peer.identity, false, damaged)->code == RefusalCode::certificate);
  peer.greeting.name = "../etc";
  CHECK(machine.greet(peer.greeting, peer.identity, false, damaged)->code == RefusalCode::name);
  peer.greeting.version.reset();
  CHECK(machine.greet(peer.greeting, peer.identity, false, damaged)->code == RefusalCode::version);
}

TEST_CASE("admission: a run that started while a client was joining goes on without it, but not without its own") {
  for (const bool is_resumed : {false, true}) {
    Situation run;
    if (is_resumed) run.resume_with("silo-1");
    AdmissionMachine machine(run.criteria, run.lobby);
    const Peer peer;
    CHECK(std::get<Place>(machine.place("silo-1", nullptr)) == Place::lobby);
    run.lobby.close();
    const auto joined = machine.join(Place::lobby, peer.joining, nullptr, peer.present);
    CHECK(std::holds_alternative<Accepted>(joined) == is_resumed);
    if (is_resumed) continue;
    CHECK(std::get<Refusal>(joined).code == RefusalCode::started);
    CHECK(std::get<Refusal>(joined).is_for_now);
  }
}

TEST_CASE("admission: of two newcomers to the last place the first to join has it") {
  Situation run;
  run.lobby.close();
  run.criteria.num_late = 1;
  AdmissionMachine machine(run.criteria, run.lobby);
  machine.open_for_late();
  Peer first;
  Peer second;
  second.come_as("silo-2");
  CHECK(std::get<Place>(machine.place("silo-1", nullptr)) == Place::newcomer);
  CHECK(std::get<Place>(machine.place("silo-2", nullptr)) == Place::newcomer);
  CHECK(std::holds_alternative<Accepted>(machine.join(Place::newcomer, first.joining, nullptr, first.present)));
  machine.count_newcomer();
  const auto refused = machine.join(Place::newcomer, second.joining, nullptr, second.present);
  CHECK(std::get<Refusal>(refused).code == RefusalCode::started);
}

TEST_CASE("admission: the lobby's place is free again for whoever comes after a client that is gone") {
  Situation run;
  AdmissionMachine machine(run.criteria, run.lobby);
  for (const char* name : {"a", "b"}) CHECK(std::get<Place>(machine.place(name, nullptr)) == Place::lobby);
  CHECK(std::get<Refusal>(machine.place("c", nullptr)).code == RefusalCode::full);
  machine.leave_lobby("a");
  CHECK(std::get<Place>(machine.place("c", nullptr)) == Place::lobby);
  machine.forget("b", 2);
  Peer peer;
  peer.come_as("b");
  // What it did before counts in its next session.
  CHECK(visit(machine, peer).accepted.num_violations == 2);
}

TEST_CASE("admission: a client may come ten times at once and then every five seconds; others are not slowed") {
  Lobby lobby(2);
  AdmissionMachine machine({}, lobby);
  TimePoint now{};
  const auto pause_of = [&](const std::string& name) { return std::get<milliseconds>(machine.claim(name, {}, now)); };
  for (int i = 0; i < 10; ++i) CHECK(pause_of("silo-1") == milliseconds(0));
  CHECK(pause_of("silo-1") == seconds(5));
  CHECK(pause_of("silo-2") == milliseconds(0));
  now += seconds(10);
  CHECK(pause_of("silo-1") == milliseconds(0));
  // A coming that is refused does not count.
  NameHolders holders;
  holders.is_joining = true;
  for (int i = 0; i < 20; ++i) CHECK(std::holds_alternative<Refusal>(machine.claim("silo-3", holders, now)));
  CHECK(pause_of("silo-3") == milliseconds(0));
}

TEST_CASE("admission: where the server has no samples, clients are compared with those that are there") {
  Situation run;
  run.criteria.figures.reset();
  AdmissionMachine machine(run.criteria, run.lobby);
  Peer first;
  CHECK_FALSE(machine.reference_for("silo-1", {}));
  CHECK(visit(machine, first).place == Place::lobby);
  CHECK_MESSAGE(!machine.reference_for("silo-1", {"silo-1"}), "not with itself");
  CHECK_MESSAGE(!machine.reference_for("silo-2", {}), "not with one that is gone");
  const auto reference = machine.reference_for("silo-2", {"silo-1"});
  REQUIRE(reference);
  CHECK(reference->whose.find("silo-1") != std::string::npos);
  CHECK(reference->figures.max == std::vector<double>{1});
  Peer second;
  second.come_as("silo-2");
  second.present = {"silo-1"};
  second.joining.figures = figures_up_to(255);
  CHECK(visit(machine, second).refusal->code == RefusalCode::samples);
  // One that is not admitted is no measure for others.
  CHECK_FALSE(machine.reference_for("silo-3", {"silo-2"}));
}

TEST_CASE("admission: odd samples are a warning, and for a client of the run even impossible ones") {
  Situation run;
  AdmissionMachine machine(run.criteria, run.lobby);
  Peer odd;
  odd.joining.figures->deviation = {0.04};
  odd.joining.figures->mean = {0.01};
  CHECK(visit(machine, odd).accepted.warning.find("lie far from the run's") != std::string::npos);

  Situation resumed;
  resumed.resume_with("silo-1");
  AdmissionMachine again(resumed.criteria, resumed.lobby);
  Peer impossible;
  impossible.joining.figures = figures_up_to(255);
  CHECK(visit(again, impossible).accepted.warning.find("cannot be those of the run") != std::string::npos);
}

TEST_CASE("admission: a client that returns must bring the samples that it joined with") {
  Situation run;
  AdmissionMachine machine(run.criteria, run.lobby);
  Peer peer;
  CHECK(visit(machine, peer).place == Place::lobby);
  run.lobby.close();
  peer.member = Member{info_of("silo-1"), 0};
  CHECK_FALSE(visit(machine, peer).refusal);
  peer.joining.figures = figures_up_to(0.5);
  const Outcome outcome = visit(machine, peer);
  REQUIRE(outcome.refusal);
  CHECK(outcome.refusal->code == RefusalCode::changed_samples);
  CHECK_FALSE(outcome.refusal->is_for_now);
}

// ---- one test a message

/// The words of the row's refusal.
std::string words_of(const char* what) {
  for (const Row& row : rows) {
    if (std::string_view(row.what) != what) continue;
    Situation run;
    Peer peer;
    row.change(run, peer);
    AdmissionMachine machine(run.criteria, run.lobby);
    run.prepare(machine);
    const Outcome outcome = visit(machine, peer);
    return outcome.refusal ? outcome.refusal->words : "(no refusal)";
  }
  return "(no such row)";
}

TEST_CASE("admission's words: versions, and what the client says it is") {
  CHECK(words_of("no version in common") ==
        "this client speaks protocol version 6, the server version 6; use headstart of the same version on both sides "
        "(the client says: \"headstart 1\")");
  Lobby lobby(2);
  const AdmissionMachine machine({}, lobby);
  Greeting silent;
  silent.its_versions = "versions 7 to 9";
  silent.our_versions = "version 6";
  CHECK(machine.greet(silent, "", false, [](const std::string&) { return true; })->words ==
        "this client speaks protocol versions 7 to 9, the server version 6; use headstart of the same version on both "
        "sides");
}

TEST_CASE("admission's words: who the client is") {
  CHECK(words_of("a name that is none") ==
        "the client's name must be 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit");
  CHECK(words_of("certified as another") == "the client calls itself silo-1, its certificate is that of silo-2");
  CHECK(words_of("not on the list") == "silo-1 is not on the list of the clients that may join");
  CHECK(words_of("lacks tasks") ==
        "the run has tasks that this client does not know: train (5); use a version of headstart that does, or a "
        "worker that offers them");
  CHECK(words_of("its name is in use") ==
        "a client named 'silo-1' is in this run already; give each client a name of its own. That one, at "
        "192.0.2.7:50000, is alive; is this client running twice?");
  CHECK(words_of("its name is just coming in") == "another connection is just joining as 'silo-1'");
  CHECK(words_of("its name holds a place already") ==
        "a client named 'silo-1' is in this run already; give each client a name of its own");
  CHECK(words_of("broke the protocol three times") == "silo-1 has broken the protocol 3 times");
  CHECK(check_went_on().words == "a check does not join");
}

TEST_CASE("admission's words: how the run stands") {
  CHECK(words_of("the server is being stopped") == "the server is being stopped");
  CHECK(words_of("the run is over") == "the run is over");
  CHECK(words_of("all places are taken") == "the run is full: all 2 clients are there");
  CHECK(words_of("the run has started") == "the run has started; clients join before that");
  CHECK(words_of("a newcomer before the rounds") == "the run has started; new clients can join when its rounds begin");
  CHECK(words_of("not of the run that is resumed") == "the run goes on with the 1 clients that it began with");
}

TEST_CASE("admission's words: what the client brings") {
  CHECK(words_of("its own model is too large").find("limits.own_model of the run allows 1000") != std::string::npos);
  CHECK(words_of("its own model is none").starts_with("the client's own model: "));
  CHECK(words_of("does not fit the terms") == "no samples");
  CHECK(words_of("built another model") ==
        "the client's 'cnn' has another schema than the server's; are the versions the same?");
  CHECK(words_of("returns with more samples") ==
        "silo-1 is in this run with 60 training and 6 held-out samples, own architecture '', share_model: server; "
        "it returns with 61 training and 6 held-out samples, own architecture '', share_model: server. Start it "
        "with the data and settings it joined with");
}

}  // namespace
}  // namespace headstart::server
