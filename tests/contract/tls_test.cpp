// Who gets through mutual TLS, and who does not: each refusal with its reason, on both sides.
#include "shared/net/tls.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <openssl/x509.h>
#include <spdlog/sinks/ostream_sink.h>
#include <sys/resource.h>

#include "shared/base/expiry.hpp"
#include "shared/base/files.hpp"
#include "shared/base/log.hpp"
#include "shared/base/time_text.hpp"
#include "tests/contract/channel_support.hpp"
#include "tests/support/certificates.hpp"
#include "tests/support/nobody_to_ask.hpp"
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

/// What is logged while it lives, level and message of each.
class LogCapture {
 public:
  LogCapture() {
    auto logger = std::make_shared<spdlog::logger>("captured", std::make_shared<spdlog::sinks::ostream_sink_mt>(text_));
    logger->set_pattern("%l %v");
    spdlog::set_default_logger(std::move(logger));
  }
  ~LogCapture() { spdlog::set_default_logger(before_); }
  LogCapture(const LogCapture&) = delete;
  LogCapture& operator=(const LogCapture&) = delete;

  [[nodiscard]] std::ptrdiff_t count(std::string_view part) const {
    std::istringstream lines(text_.str());
    std::ptrdiff_t count = 0;
    for (std::string line; std::getline(lines, line);) count += contains(line, part) ? 1 : 0;
    return count;
  }

 private:
  std::shared_ptr<spdlog::logger> before_ = spdlog::default_logger();
  std::ostringstream text_;
};

/// No file can be opened while it lives: the limit lies at the first descriptor that is free.
class NoDescriptors {
 public:
  NoDescriptors() {
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before_) == 0);
    const int first_free = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    REQUIRE(first_free >= 0);
    ::close(first_free);
    const rlimit none{static_cast<rlim_t>(first_free), before_.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
  }
  ~NoDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  NoDescriptors(const NoDescriptors&) = delete;
  NoDescriptors& operator=(const NoDescriptors&) = delete;

 private:
  rlimit before_{};
};

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
    for (const auto& end : {pair.near->identity_expires(), pair.far->identity_expires()}) {
      REQUIRE(end.has_value());
      CHECK(days_until(*end, std::chrono::system_clock::now()) == 364);
    }
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
    CHECK(outcome.dialler.is_of_tls);
  }
  SUBCASE("expired") {
    const auto long_ago = std::chrono::system_clock::now() - std::chrono::days(400);
    const TlsFiles files = authority().client("silo-old", long_ago);
    CHECK(contains(test::error_of(Errc::data, [&] { Tls(files, Tls::Side::client); }),
                   "has expired: it was good until " + date_text(long_ago + std::chrono::days(365))));
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
    CHECK(outcome.dialler.is_of_tls);
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

TEST_CASE("a server whose revocation list ran out while it was up: a silo is told that it may be the list") {
  TestAuthority own;
  TlsFiles silo = own.client("silo-1");
  silo.revoked.clear();
  const TlsFiles files = own.server();
  own.renew_revocations(std::chrono::system_clock::now() - std::chrono::days(400));
  // Ours would refuse to begin with such a list.
  asio::ssl::context context(asio::ssl::context::tls_server);
  context.use_certificate_chain_file(files.certificate);
  context.use_private_key_file(files.key, asio::ssl::context::pem);
  context.load_verify_file(files.authority);
  context.set_verify_mode(asio::ssl::verify_peer | asio::ssl::verify_fail_if_no_peer_cert);
  X509_STORE* store = SSL_CTX_get_cert_store(context.native_handle());
  X509_LOOKUP* lists = X509_STORE_add_lookup(store, X509_LOOKUP_file());
  REQUIRE(X509_load_crl_file(lists, files.revoked.c_str(), X509_FILETYPE_PEM) == 1);
  X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
  Failure refused;
  const auto meeting = [&]() -> Task<> {
    const auto executor = co_await asio::this_coro::executor;
    tcp::acceptor acceptor(executor, {asio::ip::address_v4::loopback(), 0});
    const auto serve = [&]() -> Task<> {
      asio::ssl::stream<tcp::socket> stream(co_await acceptor.async_accept(asio::use_awaitable), context);
      boost::system::error_code error;
      co_await stream.async_handshake(asio::ssl::stream_base::server, asio::redirect_error(asio::use_awaitable, error));
      CHECK(static_cast<bool>(error));
    };
    auto both = failure_of(dial_and_listen(acceptor.local_endpoint().port(), with(silo, Tls::Side::client))) && serve();
    refused = co_await std::move(both);
  };
  run(meeting());
  CHECK(refused.is_of_tls);
  CHECK(refused.code == Errc::rejected);
  CHECK(contains(refused.message, "certificate expired (this side's certificate, or the revocation list of the side"));
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
    CHECK(at_server.is_of_tls);
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
    CHECK(outcome.dialler.is_of_tls);
    CHECK(outcome.server.has_failed);
  }
  SUBCASE("a client's certificate in the place of a server's") {
    const Outcome outcome = meet(client, with(authority().client("silo-2"), Tls::Side::server));
    CHECK(outcome.dialler.code == Errc::rejected);
    CHECK(contains(outcome.dialler.message, "unsuitable certificate purpose"));
    CHECK(outcome.server.has_failed);
  }
}

WebSocketOptions dialling(const TlsFiles& files, std::string expected_name) {
  WebSocketOptions options = with(files, Tls::Side::client);
  options.expected_name = std::move(expected_name);
  return options;
}

WebSocketOptions listening_for_peers(const TlsFiles& files) {
  WebSocketOptions options = with(files, Tls::Side::server);
  options.requires_peer_certificate = true;
  return options;
}

TEST_CASE("a dialler that expects a name gets whoever has it, at whatever address, and nobody else") {
  const TlsFiles own = authority().peer("peer-a");
  for (const std::string name : {"peer-b", "site_b", "192.0.2.7"}) {
    const auto far = listening_for_peers(authority().peer(name));
    CHECK(contains(meet(dialling(own, name), far).dialler.message, "welcome"));
    const Outcome outcome = meet(dialling(own, "peer-c"), far);
    CHECK(outcome.dialler.code == Errc::rejected);
    CHECK(contains(outcome.dialler.message, "hostname mismatch, 'peer-c' was expected"));
    CHECK(outcome.dialler.is_of_tls);
    CHECK(outcome.server.has_failed);
  }
  SUBCASE("without a name the certificate is for the host that is dialled, or is refused") {
    CHECK(contains(meet(dialling(own, ""), listening_for_peers(authority().peer("peer-b"))).dialler.message,
                   "IP address mismatch"));
    const auto reached = listening_for_peers(authority().peer("peer-d", {"127.0.0.1"}));
    CHECK(contains(meet(dialling(own, ""), reached).dialler.message, "welcome"));
    CHECK(contains(meet(dialling(own, "peer-d"), reached).dialler.message, "welcome"));
  }
  SUBCASE("a host with a wildcard is nobody's name") {
    const auto far = listening_for_peers(authority().peer("peer-e", {"*.example.org"}));
    CHECK(contains(meet(dialling(own, "peer-b.example.org"), far).dialler.message, "hostname mismatch"));
  }
  SUBCASE("a client's certificate of that name") {
    const Outcome outcome = meet(dialling(own, "silo-2"), with(authority().client("silo-2"), Tls::Side::server));
    CHECK(contains(outcome.dialler.message, "does not hold"));
    CHECK(outcome.dialler.is_of_tls);
  }
}

TEST_CASE("two peers dial each other with the files that they listen with") {
  const std::vector<std::string> names = {"peer-a", "peer-b"};
  for (const std::size_t dialler : {0, 1}) {
    const std::string& near_name = names[dialler];
    const std::string& far_name = names[1 - dialler];
    const auto near = dialling(authority().peer(near_name, {"127.0.0.1"}), far_name);
    const auto far = listening_for_peers(authority().peer(far_name, {"127.0.0.1"}));
    const auto task = [&]() -> Task<> {
      auto connecting = connect_websockets(near, far);
      const auto pair = co_await std::move(connecting);
      const std::string at_dialler = pair.near->identity();
      const std::string at_listener = pair.far->identity();
      CHECK(at_dialler == far_name);
      CHECK(at_listener == near_name);
    };
    run(task());
  }
}

TEST_CASE("where peers are expected, who may only dial or only be dialled is refused, and is told so") {
  const auto peer = listening_for_peers(authority().peer("peer-b"));
  SUBCASE("a client's certificate") {
    const Outcome outcome = meet(dialling(authority().client("silo-1"), "peer-b"), peer);
    CHECK(outcome.server.code == Errc::rejected);
    CHECK(contains(outcome.server.message, " was refused by TLS: its certificate is not that of a peer"));
    CHECK(outcome.dialler.code == Errc::rejected);
    CHECK(contains(outcome.dialler.message, "unsupported certificate"));
    CHECK(outcome.dialler.is_of_tls);
  }
  SUBCASE("a server's certificate") {
    const Outcome outcome = meet(dialling(authority().server(), "peer-b"), peer);
    CHECK(contains(outcome.server.message, "its certificate is not that of a peer"));
    CHECK(outcome.dialler.is_of_tls);
  }
  SUBCASE("another failure keeps its own words") {
    TestAuthority stranger;
    TlsFiles files = stranger.peer("peer-a");
    files.authority = authority().client("silo-x").authority;
    files.revoked.clear();
    CHECK(contains(meet(dialling(files, "peer-b"), peer).server.message,
                   "its certificate does not hold: unable to get local issuer certificate"));
  }
  SUBCASE("where it is not required, a client's certificate holds") {
    const auto far = with(authority().peer("peer-b"), Tls::Side::server);
    CHECK(contains(meet(dialling(authority().client("silo-1"), "peer-b"), far).dialler.message, "welcome"));
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

TEST_CASE(
    "an encrypted key is refused in one sentence, at the start and later, and nobody is asked for a pass phrase") {
  const test::TemporaryFolder folder;
  TlsFiles files = authority().server();
  const std::string plain = read_text(files.key);
  const pki::Key key = pki::read_key(files.key);
  files.key = folder / "server.key";
  const test::NobodyToAsk nobody;
  for (const auto format : {test::KeyFormat::pkcs8, test::KeyFormat::traditional}) {
    write_text_atomically(files.key, test::encrypted_pem(*key, format));
    const std::string refusal = test::error_of(Errc::data, [&] { Tls(files, Tls::Side::server); });
    CHECK(contains(refusal, files.key + ": is encrypted with a pass phrase"));
    CHECK(contains(refusal, "openssl pkey -in " + files.key + " -out "));

    write_text_atomically(files.key, plain);
    Tls tls(files, Tls::Side::server);
    const auto first = tls.context();
    const LogCapture log;
    write_text_atomically(files.key, test::encrypted_pem(*key, format));
    for (int i = 0; i < 3; ++i) CHECK(tls.context() == first);
    CHECK(log.count("is encrypted with a pass phrase") == 1);
  }
  CHECK_FALSE(nobody.was_asked());
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

TEST_CASE("a change that could not be read counts as soon as it can be, and the log has each reason once") {
  const test::TemporaryFolder folder;
  TlsFiles files = authority().server();
  const std::string list = folder / "revoked.pem";
  write_text_atomically(list, read_text(files.revoked));
  files.revoked = list;
  Tls tls(files, Tls::Side::server);
  const auto first = tls.context();
  CHECK(tls.context() == first);
  write_text_atomically(list, read_text(list));
  const LogCapture log;
  {
    const NoDescriptors none;
    for (int i = 0; i < 3; ++i) CHECK(tls.context() == first);
  }
  CHECK(log.count("what was there before counts on") == 1);
  CHECK(log.count("Too many open files") == 1);
  const auto second = tls.context();
  CHECK(second != first);
  CHECK(log.count("were read again") == 1);
  write_text_atomically(list, "no list at all");
  for (int i = 0; i < 3; ++i) CHECK(tls.context() == second);
  CHECK(log.count("holds no revocation list") == 1);
  {
    const NoDescriptors none;
    CHECK(tls.context() == second);
  }
  CHECK(log.count("Too many open files") == 2);
  CHECK(log.count("were read again") == 1);
}

TEST_CASE("whoever asks is told until when certificate and list are good, and anew when they were renewed") {
  const test::TemporaryFolder folder;
  (void)authority();
  const auto now = std::chrono::system_clock::now();
  const TlsFiles ending = authority().client("silo-ending", now - std::chrono::days(355));
  const TlsFiles renewed = authority().client("silo-ending");
  TlsFiles files = ending;
  files.certificate = folder / "silo.pem";
  files.key = folder / "silo.key";
  const auto take = [&files](const TlsFiles& from) {
    write_text_atomically(files.certificate, read_text(from.certificate));
    write_text_atomically(files.key, read_text(from.key));
  };
  take(ending);
  std::vector<TlsExpiry> told;
  Tls tls(files, Tls::Side::client, [&told](const TlsExpiry& expiry) { told.push_back(expiry); });
  REQUIRE(told.size() == 1);
  CHECK(told[0].certificate == std::chrono::floor<std::chrono::seconds>(now + std::chrono::days(10)));
  REQUIRE(told[0].revoked.has_value());
  CHECK(days_until(*told[0].revoked, now) == 364);
  CHECK(tls.expiry().certificate == told[0].certificate);
  CHECK(told.size() == 1);
  take(renewed);
  CHECK(days_until(tls.expiry().certificate, now) >= 364);
  CHECK(told.size() == 2);
  files.revoked.clear();
  CHECK_FALSE(Tls(files, Tls::Side::client).expiry().revoked.has_value());
}

TEST_CASE("the log has the days that are left, as a warning where they are few") {
  TlsFiles files;
  files.certificate = "silo.pem";
  files.revoked = "list.pem";
  const SystemTime now(std::chrono::days(19'000));
  const LogCapture log;
  log_expiry(files, {now + std::chrono::days(29), now + std::chrono::days(30)}, now);
  CHECK(log.count("warning certificate silo.pem: EXPIRES SOON: 2022-02-06, 29 days; have it renewed") == 1);
  CHECK(log.count("info revocation list list.pem: until 2022-02-07, 30 days") == 1);
  log_expiry(files, {now + std::chrono::days(300), {}}, now);
  CHECK(log.count("list.pem") == 1);
}

}  // namespace
}  // namespace headstart::net
