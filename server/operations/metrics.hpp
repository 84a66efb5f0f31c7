// A run's status in Prometheus' text format, and the answers of the admin port.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "server/operations/run_status.hpp"
#include "shared/net/http.hpp"

namespace headstart::server {

/// What the process has of the machine. From /proc; empty where that is not there.
struct ProcessStatus {
  std::optional<std::uint64_t> resident_bytes, open_descriptors, max_descriptors;
};
ProcessStatus process_status();

/// Prometheus text exposition, format 0.0.4. Counters end in _total; ratios are 0..1; units are in the names.
std::string metrics_text(const RunStatus& run, const AcceptorStatus& door, const ProcessStatus& process);

/// GET /healthz: 200 while the io thread turns. /readyz: 200 while clients are taken in, else 503. /metrics. Else 404.
net::HttpAnswer answer_admin(std::string_view path, const std::function<RunStatus()>& run,
                             const std::function<AcceptorStatus()>& door);

}  // namespace headstart::server
