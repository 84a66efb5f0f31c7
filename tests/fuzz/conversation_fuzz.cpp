// Everything that a client sends after it has joined: messages, announcements and chunks in any order. Promised: the
// server's side ends when the client's does, and what it took for an attachment is whole.
#include <optional>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>

#include "shared/session/conversation.hpp"
#include "tests/fuzz/scripted_peer.hpp"

namespace {

using namespace headstart;
using fuzz::ScriptedPeer, fuzz::Sink;

/// As a client's session does: a result with a state is granted and taken.
net::Task<> serve(session::ServerConversation& conversation) {
  while (true) {
    const wire::ClientMessage message = co_await conversation.next_message();
    const auto* result = std::get_if<wire::Result>(&message);
    if (result == nullptr || result->num_bytes != Sink().num_bytes()) continue;
    conversation.post(wire::Grant{result->task});
    Sink sink;
    co_await conversation.receive_attachment(sink);
    fuzz::require(sink.is_whole(), "an attachment that was received is whole");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  net::asio::io_context io(1);
  const auto conversation = std::make_shared<session::ServerConversation>(
      io.get_executor(), std::make_unique<ScriptedPeer>(fuzz::bytes_of(data, size)));
  int num_ends = 0;
  std::optional<std::exception_ptr> ended;
  conversation->start(
      {.intercept =
           [](const wire::ClientMessage& message) { return std::holds_alternative<wire::ProgressReport>(message); },
       .on_end = [&num_ends] { ++num_ends; }});
  net::asio::co_spawn(io, serve(*conversation), [&ended](std::exception_ptr failure) { ended = failure; });
  io.run();
  fuzz::require(conversation->has_ended() && num_ends == 1, "a conversation ends once");
  fuzz::require(ended.has_value(), "whoever waits for a message learns of the end");
  fuzz::is_refused([&] { std::rethrow_exception(*ended); });
  return 0;
}
