#include "server/operations/metrics.hpp"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <utility>
#include <vector>

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>
#include <sys/resource.h>

#include "shared/base/version.hpp"

namespace headstart::server {

namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

class Families {
 public:
  /// The values added next belong to this family.
  void begin(std::string name, std::string help, MetricType type) {
    families_.push_back({std::move(name), std::move(help), type, {}});
  }
  void add(double value, Labels labels = {}) {
    ClientMetric metric;
    metric.label = std::move(labels);
    metric.gauge.value = value;
    metric.counter.value = value;
    families_.back().metric.push_back(std::move(metric));
  }
  void gauge(std::string name, std::string help, double value) {
    begin(std::move(name), std::move(help), MetricType::Gauge);
    add(value);
  }
  void gauge(std::string name, std::string help, std::optional<double> value) {
    if (value) gauge(std::move(name), std::move(help), *value);
  }
  void counter(std::string name, std::string help, double value) {
    begin(std::move(name), std::move(help), MetricType::Counter);
    add(value);
  }
  [[nodiscard]] std::string text() const {
    // A family without a value would be a comment about nothing.
    std::vector<MetricFamily> filled = families_;
    std::erase_if(filled, [](const MetricFamily& family) { return family.metric.empty(); });
    return prometheus::TextSerializer().Serialize(filled);
  }

 private:
  std::vector<MetricFamily> families_;
};

std::optional<double> number(std::optional<std::uint64_t> value) {
  return value ? std::optional(static_cast<double>(*value)) : std::nullopt;
}

void add_run(Families& out, const RunStatus& run) {
  out.begin("headstart_phase_info", "The phase under way, as a label.", MetricType::Gauge);
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

void add_clients(Families& out, const RunStatus& run) {
  const auto num_connected =
      std::ranges::count_if(run.clients, [](const ClientStatus& client) { return client.is_connected; });
  out.gauge("headstart_clients_expected", "Clients that the run waits for.", static_cast<double>(run.num_expected));
  out.gauge("headstart_clients_connected", "Clients with a connection.", static_cast<double>(num_connected));
  const auto per_client = [&](const char* name, const char* help, MetricType type, auto value) {
    out.begin(name, help, type);
    for (const ClientStatus& client : run.clients) {
      out.add(static_cast<double>(value(client)), {{"client", client.name}});
    }
  };
  per_client("headstart_client_connected", "Whether the client has a connection.", MetricType::Gauge,
             [](const ClientStatus& client) { return client.is_connected ? 1 : 0; });
  per_client("headstart_client_connections_total", "Connections of the client so far.", MetricType::Counter,
             [](const ClientStatus& client) { return client.num_connections; });
  per_client("headstart_client_received_bytes_total", "Bytes that came from the client.", MetricType::Counter,
             [](const ClientStatus& client) { return client.bytes_received; });
  per_client("headstart_client_sent_bytes_total", "Bytes that went to the client.", MetricType::Counter,
             [](const ClientStatus& client) { return client.bytes_sent; });
  out.begin("headstart_results_refused_total", "Results that did not count, by kind.", MetricType::Counter);
  for (const ClientStatus& client : run.clients) {
    for (const auto& [kind, count] : client.refusals) {
      out.add(static_cast<double>(count), {{"client", client.name}, {"kind", kind}});
    }
  }
}

void add_expiry(Families& out, const net::TlsExpiry& expiry) {
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
  Families out;
  out.begin("headstart_build_info", "The version that runs, as a label.", MetricType::Gauge);
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
    return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
            .body = metrics_text(run(), door(), process_status())};
  }
  return {.status = 404, .body = "here are /healthz, /readyz and /metrics\n"};
}

}  // namespace headstart::server
