// headstart-server: waits for its clients, runs one federation, leaves a run folder.

#include <unistd.h>

#include <iostream>
#include <thread>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/thread_pool.hpp>

#include "server/federation.hpp"
#include "server/live_view.hpp"
#include "shared/base/cli.hpp"
#include "shared/base/files.hpp"
#include "shared/base/log.hpp"
#include "shared/learn/platform.hpp"
#include "shared/net/tls.hpp"
#include "shared/net/websocket.hpp"

namespace {

using namespace headstart;
namespace asio = boost::asio;

void refuse_open_network(const server::ServerConfig& config) {
  boost::system::error_code code;
  const asio::ip::address address = asio::ip::make_address(config.address, code);
  if (code || address.is_loopback() || config.insecure || config.tls.is_set()) return;
  throw Error(Errc::usage,
              "listen.address " + config.address +
                  " is not loopback and there is no TLS: models would travel in the clear. Set "
                  "tls.authority, tls.certificate and tls.key (headstart-pki makes them), or say --insecure");
}

/// Takes one connection through its handshakes; whatever it does costs only itself.
net::Task<> serve(net::PendingPeer pending, net::WebSocketOptions options, server::Federation& federation) {
  const std::string peer = pending.peer();
  try {
    auto shaking = net::handshake(std::move(pending), options);
    auto channel = co_await std::move(shaking);
    co_await federation.admit(std::move(channel));
  } catch (const Error& error) {
    spdlog::warn("{}: {}", peer, error.what());
  }
}

net::Task<> accept_peers(net::Listener& listener, net::WebSocketOptions options, server::Federation& federation,
                         asio::any_io_executor executor) {
  while (true) {
    net::PendingPeer pending = co_await listener.accept();
    auto session = serve(std::move(pending), options, federation);
    asio::co_spawn(executor, std::move(session), [](const std::exception_ptr& failure) {
      if (failure) std::rethrow_exception(failure);
    });
  }
}

int run_server(const server::ServerConfig& config) {
  learn::return_freed_memory();
  server::check(config);
  refuse_open_network(config);
  set_up_log("server", config.log);
  learn::use_threads(config.threads);
  if (!config.allowed_clients.empty()) (void)read_text(config.allowed_clients);  // refused now, not at the first client
  net::WebSocketOptions channel_options;
  if (config.tls.is_set()) channel_options.tls = std::make_shared<net::Tls>(config.tls, net::Tls::Side::server);
  server::CentralData data = server::load_central_data(config);

  asio::io_context io(1);
  asio::thread_pool pool(std::max(1U, std::thread::hardware_concurrency()));
  net::Listener listener(io.get_executor(), config.address, static_cast<std::uint16_t>(config.port));
  server::RunFolder folder(config.folder, config.federation.checkpoints);
  folder.write_port(listener.port());
  server::LiveView view(std::cout,
                        ::isatty(STDOUT_FILENO) == 1 ? server::ViewStyle::terminal : server::ViewStyle::plain,
                        std::chrono::steady_clock::now);
  server::Federation federation(io.get_executor(), pool, config, std::move(data), folder, view,
                                std::chrono::steady_clock::now);
  spdlog::info("listening on {}://{}:{}, run folder {}", config.tls.is_set() ? "wss" : "ws", config.address,
               listener.port(), config.folder);

  asio::signal_set signals(io, SIGINT, SIGTERM);
  signals.async_wait([&federation](boost::system::error_code code, int) {
    if (!code) federation.stop();
  });
  asio::co_spawn(io, accept_peers(listener, channel_options, federation, io.get_executor()),
                 [](const std::exception_ptr&) {});
  std::exception_ptr failure;
  auto running = federation.run();
  asio::co_spawn(io, std::move(running), [&](std::exception_ptr ended, const nlohmann::json&) {
    failure = std::move(ended);
    listener.close();
    signals.cancel();
    if (failure) federation.stop();  // whoever is left must not keep the server alive
  });
  io.run();
  pool.join();
  if (failure) std::rethrow_exception(failure);
  std::cout << "done: " << config.folder << "/summary.json, final.safetensors\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  server::ServerConfig config;
  Fields fields;
  server::declare_fields(fields, config);
  CLI::App app("Headstart server: coordinates one federation and leaves a run folder.");
  add_settings(app, fields);
  app.add_flag("--insecure", config.insecure, "Listen beyond loopback without TLS (listen.insecure)");
  return run_program("headstart-server", app, argc, argv, [&] { return run_server(config); });
}
