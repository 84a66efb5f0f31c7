#include "client/peer/peer_check.hpp"

#include <fmt/format.h>

#include "client/peer/peer_run.hpp"
#include "shared/base/error.hpp"
#include "shared/base/printable.hpp"
#include "shared/net/deadline.hpp"

namespace headstart::peer {

namespace {

/// What the other side makes of this one: throws its refusal; an orderly end is none.
net::Task<> verdict(session::PeerConversation& conversation) {
  try {
    const wire::PeerMessage message = co_await conversation.next_message();
    const auto* refused = std::get_if<wire::PeerRefused>(&message);
    if (refused == nullptr) throw Error(Errc::protocol, "it goes on after a check");
    throw Error(Errc::rejected, "it refuses this peer: " + quotation(refused->reason.value, wire::max_reason_bytes));
  } catch (const Error& error) {
    if (error.code() != Errc::peer_closed) throw;
  }
}

/// The words on a neighbour that takes this peer; throws why it does not.
net::Task<std::string> greet(net::asio::any_io_executor executor, const PeersFile& file, std::string name,
                             std::string neighbour, std::map<std::string, std::string> digests,
                             net::WebSocketOptions options) {
  const std::string& address = file.member(neighbour).address;
  options.expected_name = neighbour;
  const auto limit = options.handshake_timeout;
  auto connecting = net::connect(executor, net::parse_url(address), std::move(options));
  auto channel = co_await std::move(connecting);
  const auto conversation = std::make_shared<session::PeerConversation>(executor, std::move(channel));
  conversation->start();
  const net::Deadline deadline(executor, limit, [conversation, address] {
    conversation->abort(Error(Errc::network, address + " takes the connection and does not greet"));
  });
  conversation->post(greeting(name, digests, 0, true));
  std::exception_ptr failure;
  std::string words;
  try {
    const wire::PeerMessage first = co_await conversation->next_message();
    const auto* hello = std::get_if<wire::PeerHello>(&first);
    if (const auto* refused = std::get_if<wire::PeerRefused>(&first)) {
      throw Error(Errc::rejected, "it refuses this peer: " + quotation(refused->reason.value, wire::max_reason_bytes));
    }
    if (hello == nullptr) throw Error(Errc::protocol, "what answers there does not greet as a peer does");
    if (const auto objection = objection_to(*hello, neighbour, conversation->identity(), digests)) {
      throw Error(Errc::rejected, *objection);
    }
    auto deciding = verdict(*conversation);
    co_await std::move(deciding);
    words = fmt::format("answers at {}, {} rounds done", address, hello->rounds_done);
  } catch (const std::exception&) {
    failure = std::current_exception();
  }
  auto closing = conversation->close("checked");
  co_await std::move(closing);
  if (failure) std::rethrow_exception(failure);
  co_return words;
}

}  // namespace

net::Task<std::size_t> check_neighbours(net::asio::any_io_executor executor, const PeersFile& file, std::string name,
                                        std::map<std::string, std::string> digests, net::WebSocketOptions options,
                                        std::function<void(const std::string&)> tell) {
  std::size_t num_failed = 0;
  tell(fmt::format("ok       peers.json, data and model of '{}' fit", name));
  for (const std::string& neighbour : file.neighbours_of(name)) {
    if (file.dialler_of(name, neighbour) != name) {
      tell(fmt::format("-        {} dials this peer at {}", neighbour, file.member(name).address));
      continue;
    }
    std::string failure;
    try {
      auto greeting = greet(executor, file, name, neighbour, digests, options);
      const std::string words = co_await std::move(greeting);
      tell(fmt::format("ok       {} {}", neighbour, words));
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (options.stop.stop_requested()) throw Error(Errc::interrupted, "stopped before everything was checked");
    if (failure.empty()) continue;
    ++num_failed;
    tell(fmt::format("FAILED   {}: {}", neighbour, failure));
  }
  co_return num_failed;
}

}  // namespace headstart::peer
