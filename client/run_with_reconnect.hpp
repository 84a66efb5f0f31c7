// A client over the whole of a run, whatever happens to its connections.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "client/client_loop.hpp"
#include "shared/net/redial.hpp"

namespace headstart::client {

/// Opens a connection to the server; throws as net::connect() does.
using Dial = std::function<net::Task<std::unique_ptr<net::MessageChannel>>()>;

/// Dials, joins and works, and does it again where the server cannot be reached, the connection is lost, the peer
/// breaks the protocol, or the server cannot take the client yet: after pauses as net::pause_after() says, the draw
/// from the client's name, for as long as redial.patience lasts, or patience_once_in once the server has greeted it.
/// From then on a refusal by TLS may pass, too: what holds for a certificate may change while the run waits.
/// Patience and pauses start anew when a connection was of use: a task was done on it, or it was open for as long as
/// redial.patience and redial.longest_pause. Any other failure ends it at once, as another attempt would meet the same.
/// Returns the server's closing words; throws what ended the last attempt.
net::Task<std::string> run_with_reconnect(net::asio::any_io_executor executor, Dial dial, ClientContext context,
                                          net::RedialOptions redial);

/// One run after another, as run_with_reconnect(), with a pause between: after one that ended and after one that failed
/// or refused this client, which is told to the observer as a retry. Ends by Error(interrupted) on a stop, and by
/// Error(internal).
net::Task<std::string> run_forever(net::asio::any_io_executor executor, Dial dial, ClientContext context,
                                   net::RedialOptions redial);

}  // namespace headstart::client
