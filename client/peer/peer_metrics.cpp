#include "client/peer/peer_metrics.hpp"

#include "shared/base/version.hpp"
#include "shared/net/metric_families.hpp"

namespace headstart::peer {

namespace {

std::string metrics_text(const PeerStatus& status) {
  using Type = net::MetricFamilies::Type;
  net::MetricFamilies out;
  out.begin("headstart_build_info", "The version that runs, as a label.", Type::gauge);
  out.add(1, {{"version", std::string(version())}});
  out.gauge("headstart_peer_rounds_done", "The round that was combined last; 0: pre-trained.",
            static_cast<double>(std::max<std::int64_t>(0, status.round)));
  out.gauge("headstart_peer_rounds_configured", "Rounds of the run.", static_cast<double>(status.num_rounds));
  out.gauge("headstart_peer_waiting", "Whether a round waits for its neighbours.", status.is_waiting ? 1.0 : 0.0);
  out.begin("headstart_peer_neighbour_connected", "Whether the neighbour has a connection.", Type::gauge);
  for (const auto& [name, is_connected] : status.connected) out.add(is_connected ? 1 : 0, {{"neighbour", name}});
  out.counter("headstart_peer_sent_bytes_total", "Bytes of messages to neighbours, of this process.",
              static_cast<double>(status.bytes_sent));
  out.counter("headstart_peer_received_bytes_total", "Bytes of messages from neighbours, of this process.",
              static_cast<double>(status.bytes_received));
  out.counter("headstart_peer_messages_unusable_total", "Messages that could not be used, of this process.",
              static_cast<double>(status.num_unusable));
  out.counter("headstart_peer_messages_missing_total", "Messages that rounds went on without.",
              static_cast<double>(status.num_missing));
  return out.text();
}

}  // namespace

net::HttpAnswer answer_admin(std::string_view path, const PeerStatus& status) {
  if (path == "/healthz") return {.body = "ok\n"};
  if (path == "/metrics") return net::metrics_answer(metrics_text(status));
  return {.status = 404, .body = "here are /healthz and /metrics\n"};
}

}  // namespace headstart::peer
