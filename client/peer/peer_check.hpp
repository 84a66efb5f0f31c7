// --check of a peer: what can be known of its neighbours before the run.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "client/peer/peers_file.hpp"
#include "shared/net/websocket.hpp"

namespace headstart::peer {

/// Greets each neighbour that `name` dials and tells, a line each, whether it answers and takes this peer; of those
/// that dial it, that they do. Returns how many of the dialled cannot take part as things are. Throws
/// Error(interrupted) when options.stop is requested.
net::Task<std::size_t> check_neighbours(net::asio::any_io_executor executor, const PeersFile& file, std::string name,
                                        std::map<std::string, std::string> digests, net::WebSocketOptions options,
                                        std::function<void(const std::string&)> tell);

}  // namespace headstart::peer
