#include "server/operations/metrics.hpp"

#include <algorithm>
#include <sstream>

#include <doctest/doctest.h>

namespace headstart::server {
namespace {

/// The value of the sample `name` (with its labels); -1 where there is none.
double value_of(const std::string& text, const std::string& name) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(name + " ")) return std::stod(line.substr(name.size() + 1));
  }
  return -1;
}

RunStatus a_run() {
  RunStatus run;
  run.takes_clients = true;
  run.phase = {PhaseKind::training, 7};
  run.round = 6;
  run.num_rounds = 100;
  run.accuracy = 0.8125;
  run.num_expected = 3;
  run.num_refused = 5;
  run.clients = {{.name = "a", .is_connected = true, .num_connections = 2, .bytes_received = 5'000'000'001},
                 {.name = "b",
                  .num_connections = 1,
                  .refusals = {{"invalid", 2}, {"late", 1}},
                  .tasks = {{"train", {3, 4.5, 1}}}}};
  return run;
}

TEST_CASE("metrics: run, clients and door, with what is unknown left out") {
  const std::string text = metrics_text(a_run(), {.num_inside = 4, .num_refused = 9, .num_failed = 1}, {});
  CHECK(value_of(text, "headstart_phase_info{phase=\"round\"}") == 1);
  CHECK(value_of(text, "headstart_rounds_done") == 6);
  CHECK(value_of(text, "headstart_accuracy_ratio") == 0.8125);
  CHECK(value_of(text, "headstart_clients_expected") == 3);
  CHECK(value_of(text, "headstart_clients_connected") == 1);
  CHECK(value_of(text, "headstart_client_connected{client=\"b\"}") == 0);
  CHECK(value_of(text, "headstart_client_received_bytes_total{client=\"a\"}") == 5'000'000'001);
  CHECK(value_of(text, "headstart_results_refused_total{client=\"b\",kind=\"invalid\"}") == 2);
  CHECK(value_of(text, "headstart_tasks_done_total{client=\"b\",kind=\"train\"}") == 3);
  CHECK(value_of(text, "headstart_task_seconds_total{client=\"b\",kind=\"train\"}") == 4.5);
  CHECK(value_of(text, "headstart_connections_refused_total") == 9);
  CHECK(value_of(text, "headstart_admissions_refused_total") == 5);
  CHECK(text.find("headstart_loss") == std::string::npos);
  CHECK(text.find("process_") == std::string::npos);
  // Every family is described before its samples.
  CHECK(std::ranges::count(text, '#') % 2 == 0);
}

TEST_CASE("metrics: the phase is one of a few words, whatever the round and the silo") {
  const auto label_in = [](const Phase& phase) {
    RunStatus run = a_run();
    run.phase = phase;
    const std::string text = metrics_text(run, {}, {});
    const std::string head = "headstart_phase_info{phase=\"";
    const std::size_t begin = text.find(head) + head.size();
    return text.substr(begin, text.find('"', begin) - begin);
  };
  CHECK(label_in({PhaseKind::client_consolidation, 0, "st-mary"}) == "consolidation at a client");
  CHECK(label_in({PhaseKind::public_consolidation}) == "consolidation on the public set");
  CHECK(label_in({PhaseKind::evaluation, 12}) == "round");
  CHECK(label_in({PhaseKind::finishing, 12, "distillation from 7 models"}) == "round");
  CHECK(label_in({}) == "lobby");
}

TEST_CASE("metrics: when the server's own certificate and list end, where it has them") {
  using std::chrono::seconds;
  AcceptorStatus door;
  CHECK(metrics_text({}, door, {}).find("expiry") == std::string::npos);
  door.expiry = net::TlsExpiry{SystemTime(seconds(1'800'000'001)), {}};
  CHECK(value_of(metrics_text({}, door, {}), "headstart_certificate_expiry_timestamp_seconds") == 1'800'000'001);
  CHECK(metrics_text({}, door, {}).find("headstart_revocation_list") == std::string::npos);
  door.expiry->revoked = SystemTime(seconds(1'790'000'007));
  CHECK(value_of(metrics_text({}, door, {}), "headstart_revocation_list_expiry_timestamp_seconds") == 1'790'000'007);
}

TEST_CASE("metrics: the process's own figures are there on Linux") {
  const std::string text = metrics_text({}, {}, process_status());
  CHECK(value_of(text, "process_resident_memory_bytes") > 1e6);
  CHECK(value_of(text, "process_open_fds") >= 3);
  CHECK(value_of(text, "process_max_fds") >= value_of(text, "process_open_fds"));
}

TEST_CASE("admin port: alive, ready while clients are taken in, metrics, and nothing else") {
  bool takes_clients = true;
  const auto run = [&] {
    RunStatus status = a_run();
    status.takes_clients = takes_clients;
    return status;
  };
  const auto door = [] { return AcceptorStatus{}; };
  CHECK(answer_admin("/healthz", run, door).status == 200);
  CHECK(answer_admin("/readyz", run, door).status == 200);
  CHECK(answer_admin("/metrics", run, door).content_type.find("version=0.0.4") != std::string::npos);
  CHECK(answer_admin("/", run, door).status == 404);
  takes_clients = false;
  CHECK(answer_admin("/readyz", run, door).status == 503);
  CHECK(answer_admin("/healthz", run, door).status == 200);
}

TEST_CASE("status board: what was observed, with the progress of those who have not reported as none") {
  RunObserver silent;
  TimePoint now{};
  StatusBoard board(silent, [&now] { return now; });
  board.on_phase({PhaseKind::training, 2}, 4);
  board.on_progress("a", 10, 10);
  board.on_progress("b", 5, 10);
  now += std::chrono::seconds(3);
  RunStatus status;
  board.report(status);
  CHECK((status.phase == Phase{PhaseKind::training, 2}));
  CHECK(status.phase_seconds == 3);
  CHECK(status.progress == doctest::Approx(0.375));
  CHECK(status.num_refused == 0);
  board.on_refusal(RefusalCode::full);
  board.on_refusal(RefusalCode::full);
  board.on_phase({PhaseKind::training, 3}, 4);
  board.report(status);
  CHECK(status.progress == 0);
  CHECK(status.num_refused == 2);
}

TEST_CASE("status board: the lobby's time counts from the first word of it") {
  RunObserver silent;
  TimePoint now{};
  StatusBoard board(silent, [&now] { return now; });
  board.on_lobby({}, 3);
  now += std::chrono::seconds(2);
  board.on_lobby({"a"}, 3);
  now += std::chrono::seconds(2);
  RunStatus status;
  board.report(status);
  CHECK(status.phase_seconds == 4);
}

}  // namespace
}  // namespace headstart::server
