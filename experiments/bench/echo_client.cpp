// One client whose training is replaced (EchoWorker).
//   echo_client URL NAME [AUTHORITY CERTIFICATE KEY]
#include <iostream>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>

#include "client/run_with_reconnect.hpp"
#include "experiments/bench/echo_worker.hpp"
#include "shared/learn/core/platform.hpp"
#include "shared/net/tls.hpp"
#include "shared/net/websocket.hpp"

using namespace headstart;

int main(int argc, char** argv) {
  if (argc != 3 && argc != 6) return std::cerr << "usage: echo_client URL NAME [AUTHORITY CERTIFICATE KEY]\n", 2;
  net::WebSocketOptions options;
  if (argc == 6) {
    const net::TlsFiles files{argv[3], argv[4], argv[5], {}};
    options.tls = std::make_shared<net::Tls>(files, net::Tls::Side::client);
  }
  const learn::KeepFreedMemory keep_freed_memory;  // as headstart-client does
  bench::EchoWorker worker;
  boost::asio::io_context io(1);
  boost::asio::thread_pool pool(1);
  client::ClientObserver silent;
  const net::Url url = net::parse_url(argv[1]);
  const auto dial = [&] { return net::connect(io.get_executor(), url, options); };
  auto running = client::run_with_reconnect(io.get_executor(), dial,
                                            {argv[2], &worker, &pool, &silent, std::chrono::steady_clock::now, {}}, {});
  int code = 0;
  boost::asio::co_spawn(io, std::move(running),
                        [&](const std::exception_ptr& failure, const std::string&) { code = failure ? 1 : 0; });
  io.run();
  pool.join();
  return code;
}
