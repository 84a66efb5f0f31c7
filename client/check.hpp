// What can be known before the day of the run: does this client reach its server, is it let in, do data and model fit.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "client/run_with_reconnect.hpp"
#include "shared/net/tls_files.hpp"

namespace headstart::client {

/// Goes through the handshake as far as a client can without joining, and builds the run's model on the client's own
/// data; `tell` is called with one sentence a step that holds, of the server's certificate also until when. Throws, as
/// run_client() does, at the first that does not: Error(usage) where the clocks are more than five minutes apart,
/// Error(usage | data) where samples or model are not those of the run: shape, classes, range of values, architecture,
/// a script's SHA-256. Tells the run's terms before that, and warns where values lie far from the run's. The server
/// sees a client that hung up; one of the same certificate that is in the run stays there.
net::Task<> check_run(net::asio::any_io_executor executor, Dial dial, ClientContext context, WallClock wall_clock,
                      std::function<void(const std::string&)> tell);

/// Tells that pre-trained models can be kept in `store`. Throws Error(storage) where they cannot: a client goes on
/// without, but trains anew whenever it is started again.
void check_store(const std::filesystem::path& store, const std::function<void(const std::string&)>& tell);

/// Tells until when this client's own certificate and revocation list are good. That they are good now is known: Tls
/// has read them.
void check_expiry(const net::TlsExpiry& expiry, SystemTime now, const std::function<void(const std::string&)>& tell);

}  // namespace headstart::client
