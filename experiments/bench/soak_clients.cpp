// Many clients in one process, each with a certificate, a connection and a conversation of its own: the real client
// loop with the handshakes, its training replaced (EchoWorker).
//   soak_clients URL DROP_EVERY < lines of NAME AUTHORITY CERTIFICATE KEY
// DROP_EVERY: each connection is lost after between half and all of so many sends and receives; 0: none is.
// Prints how many connections it made.
#include <cstdlib>
#include <deque>
#include <iostream>
#include <memory>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>

#include "client/run_with_reconnect.hpp"
#include "experiments/bench/echo_worker.hpp"
#include "shared/base/error.hpp"
#include "shared/net/faulty_channel.hpp"
#include "shared/net/tls.hpp"
#include "shared/net/websocket.hpp"

namespace {

using namespace headstart;
namespace asio = boost::asio;

struct Silo {
  std::string name;
  net::WebSocketOptions options;
  std::uint64_t num_connections = 0;
};

net::Task<std::unique_ptr<net::MessageChannel>> dial(asio::any_io_executor executor, net::Url url, Silo& silo,
                                                     std::uint64_t drop_every) {
  auto connecting = net::connect(executor, url, silo.options);
  auto channel = co_await std::move(connecting);
  const std::uint64_t connection = silo.num_connections++;
  if (drop_every == 0) co_return channel;
  const std::uint64_t draw = Seed(0).child(silo.name).child(connection).value();
  const net::FaultPlan plan{.fault = net::Fault::fail, .operation = drop_every / 2 + draw % (drop_every / 2 + 1)};
  co_return std::make_unique<net::FaultyChannel>(std::move(channel), plan);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return std::cerr << "usage: soak_clients URL DROP_EVERY < NAME AUTHORITY CERTIFICATE KEY ...\n", 2;
  const net::Url url = net::parse_url(argv[1]);
  const std::uint64_t drop_every = std::strtoull(argv[2], nullptr, 10);
  asio::io_context io(1);
  asio::thread_pool pool(1);
  client::ClientObserver silent;
  bench::EchoWorker worker;  // one for all: the pool has one thread
  std::deque<Silo> silos;
  int num_failed = 0;
  net::TlsFiles files;
  for (std::string name; std::cin >> name >> files.authority >> files.certificate >> files.key;) {
    Silo& silo = silos.emplace_back();
    silo.name = name;
    silo.options.tls = std::make_shared<net::Tls>(files, net::Tls::Side::client);
    auto running = client::run_with_reconnect(
        io.get_executor(), [&io, url, &silo, drop_every] { return dial(io.get_executor(), url, silo, drop_every); },
        {name, &worker, &pool, &silent, std::chrono::steady_clock::now, {}}, {});
    asio::co_spawn(io, std::move(running), [&num_failed, name](const std::exception_ptr& failure, const std::string&) {
      if (!failure) return;
      ++num_failed;
      try {
        std::rethrow_exception(failure);
      } catch (const std::exception& error) {
        std::cerr << name << ": " << error.what() << '\n';
      }
    });
  }
  io.run();
  pool.join();
  std::uint64_t num_connections = 0;
  for (const Silo& silo : silos) num_connections += silo.num_connections;
  std::cout << num_connections << std::endl;
  return num_failed == 0 ? 0 : 1;
}
