// headstart-client: dials the server, trains on the silo's own data as it is told, until the run is over.

#include <cmath>
#include <cstdlib>
#include <iostream>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>

#include "client/check.hpp"
#include "client/make_worker.hpp"
#include "client/run_with_reconnect.hpp"
#include "shared/base/cli.hpp"
#include "shared/base/log.hpp"
#include "shared/base/names.hpp"
#include "shared/base/printable.hpp"
#include "shared/base/signals.hpp"
#include "shared/learn/core/platform.hpp"
#include "shared/net/stop_signals.hpp"
#include "shared/net/tls.hpp"
#include "shared/net/websocket.hpp"
#include "shared/worker_process/child_process.hpp"

namespace {

using namespace headstart;
namespace asio = boost::asio;

class LogObserver final : public client::ClientObserver {
 public:
  void on_joined(std::uint32_t present, std::uint32_t expected) override {
    spdlog::info("joined: {} of {} clients are there", present, expected);
  }
  void on_task(const std::string& what) override { spdlog::info("{}", what); }
  void on_progress(std::uint64_t done, std::uint64_t total) override { spdlog::debug("{} of {} samples", done, total); }
  void on_result_refused(const std::string& reason) override {
    spdlog::error("the server refused this client's result: {}", quotation(reason, wire::max_reason_bytes));
  }
  void on_notice(const std::string& words) override { spdlog::warn("the server says: '{}'", words); }
  void on_retry(const std::string& reason, std::chrono::milliseconds pause) override {
    spdlog::warn("{}; trying again in {:.1f} s", reason, std::chrono::duration<double>(pause).count());
  }
};

/// What is asked for beside the settings.
struct Mode {
  bool is_check = false;
  bool is_forever = false;
};

int run_client(const client::ClientConfig& config, Mode mode) {
  const bool is_check = mode.is_check;
  if (is_check && mode.is_forever) throw Error(Errc::usage, "--check and --forever exclude each other");
  if (config.server.empty()) throw Error(Errc::usage, "--server wss://HOST:PORT is needed");
  if (!is_valid_client_name(config.name)) {
    throw Error(Errc::usage, "--name: expected 1 to 64 letters, digits, '.', '_' or '-', got '" + config.name + "'");
  }
  const net::Url url = net::parse_url(config.server);
  if (!url.is_secure && config.tls.is_set()) {
    throw Error(Errc::usage, "--server " + config.server + " is in the clear while tls.* is set; say wss://");
  }
  set_up_log(config.name, config.log, config.log_format);
  net::WebSocketOptions channel_options;
  if (config.tls.is_set()) {
    const auto on_load = [&config, is_check](const net::TlsExpiry& expiry) {
      if (!is_check) net::log_expiry(config.tls, expiry, std::chrono::system_clock::now());
    };
    channel_options.tls = std::make_shared<net::Tls>(config.tls, net::Tls::Side::client, on_load);
  }
  learn::use_threads(config.threads);
  const learn::KeepFreedMemory keep_freed_memory;
  const std::unique_ptr<client::Worker> worker = client::make_worker(config);

  net::RedialOptions redial;
  redial.patience = std::chrono::milliseconds(std::llround(1000 * config.patience));
  redial.patience_once_in = std::chrono::milliseconds(std::llround(1000 * config.patience_once_in));

  asio::io_context io(1);
  asio::thread_pool pool(1);
  LogObserver observer;
  std::exception_ptr failure;
  std::string summary;
  std::stop_source stop;
  // A working client that ends in the middle of something loses what the server asks for again.
  const net::StopSignals signals(stop_signals(), [&] { asio::post(io, [&stop] { stop.request_stop(); }); },
                                 {.leave = [] {
                                   worker_process::kill_workers();
                                   std::_Exit(static_cast<int>(Errc::interrupted));
                                 }});
  channel_options.stop = stop.get_token();
  const auto dial = [&] { return net::connect(io.get_executor(), url, channel_options); };
  client::ClientContext context{config.name,     worker.get(), &pool, &observer, std::chrono::steady_clock::now,
                                stop.get_token()};
  const auto check = [&]() -> net::Task<std::string> {
    const auto tell = [](const std::string& words) { std::cout << "ok  " << printable(words) << std::endl; };
    if (!config.store.empty()) client::check_store(config.store, tell);
    if (channel_options.tls) {
      client::check_expiry(channel_options.tls->expiry(), std::chrono::system_clock::now(), tell);
    }
    auto checking = client::check_run(io.get_executor(), dial, context, std::chrono::system_clock::now, tell);
    co_await std::move(checking);
    co_return "everything that can be known before the run holds";
  };
  auto running = is_check          ? check()
                 : mode.is_forever ? client::run_forever(io.get_executor(), dial, context, redial)
                                   : client::run_with_reconnect(io.get_executor(), dial, context, redial);
  asio::co_spawn(io, std::move(running), [&](std::exception_ptr ended, std::string words) {
    failure = std::move(ended);
    summary = std::move(words);
  });
  io.run();
  pool.join();
  if (stop.stop_requested())
    throw Error(Errc::interrupted, is_check ? "stopped by the user before everything was checked"
                                            : "stopped by the user; the server goes on without this client if it can");
  if (failure) std::rethrow_exception(failure);
  spdlog::info("{}", summary);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  client::ClientConfig config;
  Fields fields;
  client::declare_fields(fields, config);
  CLI::App app("Headstart client: trains on this silo's data as the server asks; the data never leaves.");
  add_settings(app, fields,
               {"server", "name", "data.set", "data.path", "worker.command", "share_model", "tls.authority",
                "tls.certificate", "tls.key"});
  app.add_option("--server", config.server, "The server's address, wss://HOST:PORT (TLS) or ws://HOST:PORT");
  app.add_option("--name", config.name, "This client's name in the run");
  app.add_option("--worker", config.worker.command,
                 "Command of this silo's own that trains and measures in place of the client (shared/worker_process)");
  Mode mode;
  app.add_flag("--forever", mode.is_forever,
               "Take the next run when one has ended or failed, until this client is stopped (Ctrl-C)");
  app.add_flag(
      "--check", mode.is_check,
      "Test name, certificate, server, data and model, say what is wrong or ends soon, and leave without joining. "
      "Under TLS it may run beside this client itself, which stays in its run");
  return run_program("headstart-client", app, argc, argv, [&] { return run_client(config, mode); });
}
