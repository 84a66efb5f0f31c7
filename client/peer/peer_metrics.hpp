// A peer's answers to probes and to a metrics collector.
#pragma once

#include <string_view>

#include "client/peer/peer_run.hpp"
#include "shared/net/http.hpp"

namespace headstart::peer {

/// /healthz: 200 while the process lives. /metrics: Prometheus's text format. Others: 404.
net::HttpAnswer answer_admin(std::string_view path, const PeerStatus& status);

}  // namespace headstart::peer
