#include "server/operations/metrics.hpp"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <utility>
#include <vector>

#include <sys/resource.h>

#include "shared/base/version.hpp"
#include "shared/net/metric_families.hpp"

namespace headstart::server {

namespace {

using net::MetricFamilies;
using Type = MetricFamilies::Type;

std::optional<double> number(std::optional<std::uint64_t> value) {
  return value ? std::optional(static_cast<double>(*value)) : std::nullopt;
}

void add_run(MetricFamilies& out, const RunStatus& run) {
  out.begin("headstart_phase_info", "The phase under way, as a label.", Type::gauge);
  out.add(1, {{"phase", std::string(label_of(run.phase.kind))}});
  out.gauge("headstart_phase_seconds", "How long the phase has taken so far.", run.phase_seconds);
  out.gauge("headstart_phase_progress_ratio", "Share of the phase's samples that are done.", run.progress);
  out.gauge("headstart_run_seconds", "How long the run has taken so far.", run.seconds);
  out.gauge("headstart_rounds_done", "Rounds whose global model is kept.", static_cast<double>(run.round));
  out.gauge("headstart_rounds_configured", "Rounds of the run.", static_cast<double>(run.num_rounds));
  out.gauge("headstart_accuracy_ratio", "Test accuracy of the newest global model.", run.accuracy);
  out.gauge("headstart_loss", "Test loss of the newest global model.", run.loss);
  out.gauge("headstart_federated_accuracy_ratio", "Its accuracy on the clients' held-out data.",
            run.federated_accuracy);
  out.gauge("headstart_left_out", "Answers that the run had to go on without.", static_cast<double>(run.num_left_out));
  out.counter("headstart_admissions_refused_total", "Connections that finished their handshakes and were not admitted.",
              static_cast<double>(run.num_refused));
  out.gauge("headstart_upload_memory_bytes", "Memory that updates in flight hold.",
            static_cast<double>(run.upload_memory));
  out.counter("headstart_uploads_staged_total", "Updates that were staged on disk for want of memory.",
              static_cast<double>(run.num_staged));
}

void add_clients(MetricFamilies& out, const RunStatus& run) {
  const auto num_connected =
      std::ranges::count_if(run.clients, [](const ClientStatus& client) { return client.is_connected; });
  out.gauge("headstart_clients_expected", "Clients that the run waits for.", static_cast<double>(run.num_expected));
  out.gauge("headstart_clients_connected", "Clients with a connection.", static_cast<double>(num_connected));
  const auto per_client = [&](const char* name, const char* help, Type type, auto value) {
    out.begin(name, help, type);
    for (const ClientStatus& client : run.clients) {
      out.add(static_cast<double>(value(client)), {{"client", client.name}});
    }
  };
  per_client("headstart_client_connected", "Whether the client has a connection.", Type::gauge,
             [](const ClientStatus& client) { return client.is_connected ? 1 : 0; });
  per_client("headstart_client_connections_total", "Connections of the client so far.", Type::counter,
             [](const ClientStatus& client) { return client.num_connections; });
  per_client("headstart_client_received_bytes_total", "Bytes that came from the client.", Type::counter,
             [](const ClientStatus& client) { return client.bytes_received; });
  per_client("headstart_client_sent_bytes_total", "Bytes that went to the client.", Type::counter,
             [](const ClientStatus& client) { return client.bytes_sent; });
  const auto per_kind = [&](const char* name, const char* help, auto value) {
    out.begin(name, help, Type::counter);
    for (const ClientStatus& client : run.clients) {
      for (const auto& [kind, times] : client.tasks) {
        out.add(static_cast<double>(value(times)), {{"client", client.name}, {"kind", kind}});
      }
    }
  };
  per_kind("headstart_tasks_done_total", "Tasks that the client has answered, by kind.",
           [](const TaskTimes& times) { return times.count; });
  per_kind("headstart_task_seconds_total", "Seconds from the order to the whole answer, of those tasks.",
           [](const TaskTimes& times) { return times.seconds; });
  out.begin("headstart_results_refused_total", "Results that did not count, by kind.", Type::counter);
  for (const ClientStatus& client : run.clients) {
    for (const auto& [kind, count] : client.refusals) {
      out.add(static_cast<double>(count), {{"client", client.name}, {"kind", kind}});
    }
  }
}

void add_expiry(MetricFamilies& out, const net::TlsExpiry& expiry) {
  const auto unix_time = [](SystemTime time) { return std::chrono::duration<double>(time.time_since_epoch()).count(); };
  out.gauge("headstart_certificate_expiry_timestamp_seconds", "When the server's certificate ends, in Unix time.",
            unix_time(expiry.certificate));
  if (!expiry.revoked) return;
  out.gauge("headstart_revocation_list_expiry_timestamp_seconds",
            "When the revocation list ends that the server goes by, in Unix time.", unix_time(*expiry.revoked));
}

}  // namespace

ProcessStatus process_status() {
  ProcessStatus status;
  std::ifstream memory("/proc/self/statm");
  std::uint64_t pages = 0;
  std::uint64_t resident = 0;
  if (memory >> pages >> resident)
    status.resident_bytes = resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  std::error_code code;
  const std::filesystem::directory_iterator descriptors("/proc/self/fd", code);
  if (!code) status.open_descriptors = static_cast<std::uint64_t>(std::distance(begin(descriptors), end(descriptors)));
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) status.max_descriptors = limit.rlim_cur;
  return status;
}

std::string metrics_text(const RunStatus& run, const AcceptorStatus& door, const ProcessStatus& process) {
  MetricFamilies out;
  out.begin("headstart_build_info", "The version that runs, as a label.", Type::gauge);
  out.add(1, {{"version", std::string(version())}});
  add_run(out, run);
  add_clients(out, run);
  out.gauge("headstart_handshakes", "Connections that have not joined yet.", static_cast<double>(door.num_inside));
  out.counter("headstart_connections_refused_total", "Connections beyond limits.handshakes.",
              static_cast<double>(door.num_refused));
  out.counter("headstart_handshakes_failed_total", "Connections that failed in TLS or the WebSocket upgrade.",
              static_cast<double>(door.num_failed));
  if (door.expiry) add_expiry(out, *door.expiry);
  out.gauge("process_resident_memory_bytes", "Resident memory.", number(process.resident_bytes));
  out.gauge("process_open_fds", "Open file descriptors.", number(process.open_descriptors));
  out.gauge("process_max_fds", "Largest number of open file descriptors.", number(process.max_descriptors));
  return out.text();
}

net::HttpAnswer answer_admin(std::string_view path, const std::function<RunStatus()>& run,
                             const std::function<AcceptorStatus()>& door) {
  if (path == "/healthz") return {.body = "ok\n"};
  if (path == "/readyz") {
    if (run().takes_clients) return {.body = "ready\n"};
    return {.status = 503, .body = "the run is over or being stopped\n"};
  }
  if (path == "/metrics") {
    return net::metrics_answer(metrics_text(run(), door(), process_status()));
  }
  return {.status = 404, .body = "here are /healthz, /readyz, /metrics and, at /, a page\n"};
}

}  // namespace headstart::server
