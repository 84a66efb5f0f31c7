// Who gets through mutual TLS, and who does not: each refusal with its reason, on both sides.
#include "shared/net/tls.hpp"

#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/stream.hpp>

#include "shared/base/files.hpp"
#include "tests/contract/channel_support.hpp"
#include "tests/support/certificates.hpp"
#include "tests/support/throws.hpp"

namespace headstart::net {

using asio::experimental::awaitable_operators::operator&&;
using test::TestAuthority;
using tcp = asio::ip::tcp;

namespace {

WebSocketOptions with(const TlsFiles& files, Tls::Side side) {
  WebSocketOptions options;
  options.tls = std::make_shared<Tls>(files, side);
  return options;
}

TestAuthority& authority() {
  static TestAuthority shared;
  return shared;
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

struct Outcome {
  Failure dialler;
  Failure server;
};

/// Dials, then listens: under TLS 1.3 a client learns only then that its certificate was refused.
Task<> dial_and_listen(std::uint16_t port, WebSocketOptions options) {
  const auto executor = co_await asio::this_coro::executor;
  const Url url{"127.0.0.1", port, "/", options.tls != nullptr};
  auto dialling = net::connect(executor, url, options);
  const auto channel = co_await std::move(dialling);
  co_await channel->receive();
}

Task<> accept_and_close(Listener& listener, WebSocketOptions options) {
  auto accepting = accept_one(listener, options);
  const auto channel = co_await std::move(accepting);
  std::string words = "welcome";
  co_await channel->close(std::move(words));
}

Outcome meet(const WebSocketOptions& dialler, const WebSocketOptions& server) {
  Outcome outcome;
  const auto meeting = [&]() -> Task<> {
    const auto executor = co_await asio::this_coro::executor;
    Listener listener(executor, "127.0.0.1", 0);
    auto both = failure_of(dial_and_listen(listener.port(), dialler)) && failure_of(accept_and_close(listener, server));
    auto [near, far] = co_await std::move(both);
    outcome.dialler = std::move(near);
    outcome.server = std::move(far);
  };
  run(meeting());
  return outcome;
}

/// A peer that speaks TLS as `context` says, without a certificate of ours.
Outcome meet_bare(asio::ssl::context& context, const WebSocketOptions& server) {
  Outcome outcome;
  const auto meeting = [&]() -> Task<> {
    const auto executor = co_await asio::this_coro::executor;
    Listener listener(executor, "127.0.0.1", 0);
    const auto shake = [&context](std::uint16_t port) -> Task<> {
      const auto own = co_await asio::this_coro::executor;
      asio::ssl::stream<tcp::socket> stream(own, context);
      const tcp::endpoint endpoint(asio::ip::address_v4::loopback(), port);
      co_await stream.next_layer().async_connect(endpoint, asio::use_awaitable);
      boost::system::error_code error;
      co_await stream.async_handshake(asio::ssl::stream_base::client, asio::redirect_error(asio::use_awaitable, error));
      std::array<char, 1> byte{};
      if (!error) {
        co_await stream.async_read_some(asio::buffer(byte), asio::redirect_error(asio::use_awaitable, error));
      }
      if (error) throw Error(Errc::network, error.message());
    };
    auto both = failure_of(shake(listener.port())) && failure_of(accept_and_close(listener, server));
    auto [near, far] = co_await std::move(both);
    outcome.dialler = std::move(near);
    outcome.server = std::move(far);
  };
  run(meeting());
  return outcome;
}

}  // namespace

Task<ChannelPair> TlsClient::connect() {
  const auto near = with(authority().client("silo-1"), Tls::Side::client);
  const auto far = with(authority().server(), Tls::Side::server);
  auto connecting = connect_websockets(near, far);
  co_return co_await std::move(connecting);
}

Task<ChannelPair> TlsServer::connect() {
  auto connecting = TlsClient::connect();
  auto pair = co_await std::move(connecting);
  co_return ChannelPair{std::move(pair.far), std::move(pair.near)};
}

namespace {

TEST_CASE("each side knows the other by its certificate") {
  const auto task = []() -> Task<> {
    auto connecting = TlsClient::connect();
    const auto pair = co_await std::move(connecting);
    const std::string server = pair.near->identity();
    const std::string client = pair.far->identity();
    CHECK(server == "server");
    CHECK(client == "silo-1");
  };
  run(task());
}

TEST_CASE("whoever the authority did not certify, or no longer, is refused, and both sides are told why") {
  const auto server = with(authority().server(), Tls::Side::server);
  SUBCASE("another authority") {
    TestAuthority stranger;
    TlsFiles files = stranger.client("silo-1");
    files.authority = authority().client("silo-x").authority;  // it trusts the server, the server does not trust it
    files.revoked.clear();
    const Outcome outcome = meet(with(files, Tls::Side::client), server);
    CHECK(outcome.server.code == Errc::rejected);
    CHECK(contains(outcome.server.message, "unable to get local issuer certificate"));
    CHECK(outcome.dialler.code == Errc::rejected);
    CHECK(contains(outcome.dialler.message, "unknown CA"));
  }
  SUBCASE("expired") {
    const auto long_ago = std::chrono::system_clock::now() - std::chrono::days(400);
    const TlsFiles files = authority().client("silo-old", long_ago);
    CHECK(contains(test::error_of(Errc::data, [&] { Tls(files, Tls::Side::client); }), "has expired"));
    // A peer that does not look at its own.
    asio::ssl::context context(asio::ssl::context::tls_client);
    context.use_certificate_chain_file(files.certificate);
    context.use_private_key_file(files.key, asio::ssl::context::pem);
    const Outcome outcome = meet_bare(context, server);
    CHECK(outcome.server.code == Errc::rejected);
    CHECK(contains(outcome.server.message, "certificate has expired"));
    CHECK(outcome.dialler.has_failed);
  }
  SUBCASE("revoked") {
    const TlsFiles files = authority().client("silo-bad");
    const auto client = with(files, Tls::Side::client);
    CHECK(contains(meet(client, server).dialler.message, "welcome"));
    authority().revoke("silo-bad");
    // The same server, not started again.
    const Outcome outcome = meet(client, server);
    CHECK(outcome.server.code == Errc::rejected);
    CHECK(contains(outcome.server.message, "certificate revoked"));
    CHECK(outcome.dialler.code == Errc::rejected);
    CHECK(contains(outcome.dialler.message, "certificate revoked"));
    CHECK_FALSE(meet(with(authority().client("silo-good"), Tls::Side::client), server).server.has_failed);
  }
  SUBCASE("no certificate") {
    asio::ssl::context context(asio::ssl::context::tls_client);
    const Outcome outcome = meet_bare(context, server);
    CHECK(outcome.server.code == Errc::rejected);
    CHECK(contains(outcome.server.message, "peer did not return a certificate"));
    CHECK(outcome.dialler.has_failed);
  }
  SUBCASE("TLS 1.2") {
    asio::ssl::context context(asio::ssl::context::tlsv12_client);
    const Outcome outcome = meet_bare(context, server);
    CHECK(outcome.server.code == Errc::rejected);
    CHECK(contains(outcome.server.message, "unsupported protocol"));
    CHECK(outcome.dialler.has_failed);
  }
  SUBCASE("no TLS at all") {
    const Outcome outcome = meet({}, server);
    CHECK(outcome.server.code == Errc::rejected);
    CHECK(contains(outcome.server.message, "http request"));
    CHECK(outcome.dialler.has_failed);
  }
}

/// A silo's connection to a server of these options; both ends look at certificates four times in `span`.
Task<ChannelPair> connect_silo(std::string name, WebSocketOptions server, std::chrono::milliseconds span) {
  auto client = with(authority().client(name), Tls::Side::client);
  client.idle_timeout = span;
  server.idle_timeout = span;
  auto connecting = connect_websockets(client, server);
  co_return co_await std::move(connecting);
}

TEST_CASE("a revocation ends the connection that is there, and no other") {
  const auto server = with(authority().server(), Tls::Side::server);
  const auto task = [&]() -> Task<> {
    // The one that stays is looked at more often: by the time the other has ended, it was looked at too.
    auto staying = connect_silo("silo-stays", server, std::chrono::milliseconds(100));
    const auto good = co_await std::move(staying);
    auto leaving = connect_silo("silo-leaves", server, std::chrono::seconds(2));
    const auto bad = co_await std::move(leaving);
    authority().revoke("silo-leaves");
    auto both = failure_of(bad.far->receive()) && failure_of(bad.near->receive());
    const auto [at_server, at_silo] = co_await std::move(both);
    CHECK(at_server.code == Errc::rejected);
    CHECK(contains(at_server.message, "its certificate has been revoked"));
    CHECK(at_silo.has_failed);
    auto sending = good.near->send(bytes_of("still here"), {});
    co_await std::move(sending);
    const std::string heard = text_of(co_await good.far->receive());
    CHECK(heard == "still here");
  };
  run(task());
}

TEST_CASE("a client refuses a server that is not the one it dialled") {
  const auto client = with(authority().client("silo-1"), Tls::Side::client);
  SUBCASE("another host's certificate") {
    const Outcome outcome = meet(client, with(authority().server({"fl.example.org"}), Tls::Side::server));
    CHECK(outcome.dialler.code == Errc::rejected);
    CHECK(contains(outcome.dialler.message, "IP address mismatch"));
    CHECK(outcome.server.has_failed);
  }
  SUBCASE("a client's certificate in the place of a server's") {
    const Outcome outcome = meet(client, with(authority().client("silo-2"), Tls::Side::server));
    CHECK(outcome.dialler.code == Errc::rejected);
    CHECK(contains(outcome.dialler.message, "unsuitable certificate purpose"));
    CHECK(outcome.server.has_failed);
  }
}

TEST_CASE("files that cannot serve are refused at the start, by name") {
  const TlsFiles good = authority().client("silo-files");
  const auto refusal = [&](auto damage, Errc code = Errc::data) {
    TlsFiles files = good;
    damage(files);
    return test::error_of(code, [&] { Tls(files, Tls::Side::client); });
  };
  CHECK(contains(refusal([](TlsFiles& f) { f.key.clear(); }, Errc::usage), "tls.key is missing"));
  CHECK(contains(refusal([](TlsFiles& f) { f.certificate = "/no/such.pem"; }), "/no/such.pem: cannot be read"));
  CHECK(contains(refusal([](TlsFiles& f) { f.certificate = f.key; }), "holds no certificate in PEM form"));
  CHECK(contains(refusal([](TlsFiles& f) { f.key = authority().client("silo-other").key; }), "not that of"));
  CHECK(contains(refusal([](TlsFiles& f) { f.revoked = f.authority; }), "holds no revocation list"));
  TestAuthority stranger;
  const std::string foreign = stranger.client("x").revoked;
  CHECK(contains(refusal([&](TlsFiles& f) { f.revoked = foreign; }), "is not the revocation list of this authority"));
}

TEST_CASE("a change that cannot be used leaves what was there before") {
  const test::TemporaryFolder folder;
  TlsFiles files = authority().server();
  const std::string list = folder / "revoked.pem";
  write_text_atomically(list, read_text(files.revoked));
  files.revoked = list;
  const auto server = with(files, Tls::Side::server);
  const auto client = with(authority().client("silo-1"), Tls::Side::client);
  write_text_atomically(list, "no list at all");
  CHECK_FALSE(meet(client, server).server.has_failed);
}

}  // namespace
}  // namespace headstart::net
