// headstart-server: waits for its clients, runs one federation, leaves a run folder.

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <thread>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>

#include "server/admission/allowed_clients.hpp"
#include "server/announcement.hpp"
#include "server/operations/live_view.hpp"
#include "server/operations/metrics.hpp"
#include "server/operations/page_answers.hpp"
#include "server/operations/page_data.hpp"
#include "server/operations/run_page.hpp"
#include "server/phases/head_from_sums.hpp"
#include "server/phases/run_terms.hpp"
#include "server/run/run.hpp"
#include "server/sessions/patience.hpp"
#include "shared/base/cli.hpp"
#include "shared/base/descriptors.hpp"
#include "shared/base/files.hpp"
#include "shared/base/log.hpp"
#include "shared/base/signals.hpp"
#include "shared/learn/core/platform.hpp"
#include "shared/net/acceptor.hpp"
#include "shared/net/http.hpp"
#include "shared/net/receive_memory.hpp"
#include "shared/net/stop_signals.hpp"
#include "shared/net/tls.hpp"
#include "shared/net/websocket.hpp"
#include "shared/wire/stated_model.hpp"
#include "shared/worker_process/child_process.hpp"
#include "shared/worker_process/worker_model.hpp"

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

server::ViewStyle view_style(const server::ServerConfig& config) {
  if (config.log_format == LogFormat::json) return server::ViewStyle::log;
  return ::isatty(STDOUT_FILENO) == 1 ? server::ViewStyle::terminal : server::ViewStyle::plain;
}

/// A connection for each client and each handshake, of strangers and of the certified, a file for each result that is
/// staged, and what else is open.
void expect_descriptors(const server::ServerConfig& config) {
  const std::int64_t clients = config.federation.num_clients + config.federation.num_late;
  const auto needed = static_cast<std::size_t>(2 * clients + 2 * config.max_handshakes + 64);
  const std::size_t allowed = provide_descriptors(needed);
  if (allowed >= needed) return;
  spdlog::warn("this process may have {} files and sockets open; {} may be needed: raise the limit (ulimit -n)",
               allowed, needed);
}

void require_run_to_go_back_in(const server::ServerConfig& config) {
  if (!config.back_to_round || is_there(std::filesystem::path(config.folder) / "journal", Errc::storage)) return;
  throw Error(Errc::usage, "--back-to-round: run.folder " + config.folder + " holds no run");
}

/// Refused now, not at the first client.
void check_allowed_clients(const server::ServerConfig& config) {
  if (config.allowed_clients.empty()) return;
  try {
    const auto num_allowed = static_cast<std::int64_t>(server::read_allowed_clients(config.allowed_clients).size());
    if (num_allowed >= config.federation.num_clients) return;
    spdlog::warn("listen.allowed: {} names {} clients, and the run waits for {} (federation.clients)",
                 config.allowed_clients, num_allowed, config.federation.num_clients);
  } catch (const Error& error) {
    throw Error(error.code(), std::string("listen.allowed: ") + error.what());
  }
}

net::WebSocketOptions channel_options_of(const server::ServerConfig& config) {
  net::WebSocketOptions options;
  options.handshake_timeout = server::milliseconds_of(config.federation.timeouts.handshake);
  options.idle_timeout = server::milliseconds_of(config.federation.timeouts.silence);
  options.memory =
      std::make_shared<net::ReceiveMemory>(static_cast<std::size_t>(config.receive_memory), options.idle_timeout);
  if (config.tls.is_set()) {
    const auto on_load = [&config](const net::TlsExpiry& expiry) {
      net::log_expiry(config.tls, expiry, std::chrono::system_clock::now());
    };
    options.tls = std::make_shared<net::Tls>(config.tls, net::Tls::Side::server, on_load);
  }
  return options;
}

/// Reads the file of a model that is known by its tensors, and starts the process that computes it, where there is one.
std::shared_ptr<worker_process::ModelWorker> take_up_model(server::ServerConfig& config) {
  wire::read_stated_model(config.terms.model);
  if (config.worker.command.empty()) return nullptr;
  auto worker = std::make_shared<worker_process::ModelWorker>(config.worker);
  learn::StatedModel computed = *config.terms.model.stated;
  computed.make = [weak = std::weak_ptr(worker)](const learn::StatedModel& stated) {
    return weak.lock()->make(stated);
  };
  config.terms.model.stated = std::make_shared<const learn::StatedModel>(std::move(computed));
  return worker;
}

/// Terms that nobody could read, and a model that cannot be built, are refused before there is a folder.
server::CentralData checked_data(const server::ServerConfig& config, worker_process::ModelWorker* worker) {
  server::CentralData data = server::load_central_data(config);
  for (const std::string& remark : data.remarks) spdlog::warn("data: {}", remark);
  const plan::Terms terms = server::run_terms(config, data);
  if (worker != nullptr) {
    worker->take_up(plan::to_json_text(terms), config.terms.model.stated->schema, data.task.num_classes);
  }
  (void)learn::make_model(config.terms.model, data.task, Seed(1));
  learn::require_precision(config.terms.precision, learn::device_of(config.device));
  server::require_named_head(config.federation, config.terms, data.task);
  return data;
}

server::AcceptorStatus status_of(const net::AcceptorRecord& record) {
  return {record.connections.num_inside(), record.refusals.count_so_far(), record.failures.num_in_all()};
}

bool is_loopback(const std::string& text) {
  boost::system::error_code code;
  const asio::ip::address address = asio::ip::make_address(text, code);
  return !code && address.is_loopback();
}

/// What the page shows that is known before the run. Throws Error(usage) or Error(data) for page.reference.
server::RunPage::Fixed known_of_page(const server::ServerConfig& config) {
  server::RunPage::Fixed fixed{.name = server::run_name(config.folder),
                               .partition = server::partition_counts(config.manifest)};
  if (config.page_reference.empty()) return fixed;
  try {
    fixed.reference = server::reference_run(config.page_reference);
  } catch (const Error& error) {
    throw Error(error.code(), std::string("page.reference: ") + error.what());
  }
  return fixed;
}

/// Without a page. Throws Error(usage) or Error(data) for page.token_file.
server::PageDesk page_desk(const server::ServerConfig& config) {
  const std::string token = config.page_token.empty() ? "" : server::read_page_token(config.page_token);
  return {.page = nullptr, .access = server::PageAccess(token), .folder = config.folder};
}

/// Without a token there is none where others could read it.
bool has_page(const server::ServerConfig& config) {
  return !config.page_token.empty() || is_loopback(config.admin_address);
}

void announce_admin(const server::ServerConfig& config, const server::PageDesk& desk, std::uint16_t port) {
  const bool is_v6 = config.admin_address.find(':') != std::string::npos;
  const std::string url =
      fmt::format("http://{}:{}", is_v6 ? "[" + config.admin_address + "]" : config.admin_address, port);
  spdlog::info("probes and metrics on {}", url);
  if (desk.page == nullptr) {
    spdlog::info("no page to watch the run: admin.address is not loopback, and page.token_file is not set");
  } else if (config.page_token.empty()) {
    spdlog::info("the page to watch the run: {}/", url);
  } else {
    spdlog::info("the page to watch the run: {}/?token=TOKEN, with the token in {}", url, config.page_token);
  }
}

/// Until `listener` is closed.
void serve_admin(asio::io_context& io, net::Listener& listener, const server::Run& run,
                 const std::shared_ptr<net::AcceptorRecord>& connections, const std::shared_ptr<net::Tls>& tls,
                 server::PageDesk desk) {
  const auto acceptor_status = [connections, tls] {
    server::AcceptorStatus status = status_of(*connections);
    if (tls) status.expiry = tls->expiry();
    return status;
  };
  const auto answer = [&run, acceptor_status, desk = std::move(desk)](const net::HttpRequest& request) {
    if (auto of_page = server::answer_page(request, desk)) return std::move(*of_page);
    return server::answer_admin(
        request.path, [&run] { return run.status(); }, acceptor_status);
  };
  auto serving = net::serve_http(io.get_executor(), listener, answer);
  asio::co_spawn(io, std::move(serving), [](const std::exception_ptr&) {});
}

/// Until `listener` is closed.
void serve_clients(asio::io_context& io, net::Listener& listener, server::Run& run,
                   const net::WebSocketOptions& options, const std::shared_ptr<net::AcceptorRecord>& connections) {
  const net::Admit admit = [&run](std::unique_ptr<net::MessageChannel> channel, std::function<void()> on_established) {
    return run.admit(std::move(channel), std::move(on_established));
  };
  const auto on_failure = [&run](const std::string& peer, const std::string& reason) {
    run.audit().handshake_failed(peer, reason);
  };
  auto accepting = net::accept_loop(io.get_executor(), listener, options, connections, admit, on_failure);
  asio::co_spawn(io, std::move(accepting), [](const std::exception_ptr&) {});
}

/// What can be known before anything is loaded. Throws Error(usage).
void prepare(const server::ServerConfig& config) {
  learn::return_freed_memory();
  server::check(config);
  refuse_open_network(config);
  require_run_to_go_back_in(config);
  set_up_log("server", config.log, config.log_format);
  expect_descriptors(config);
  learn::use_threads(config.threads);
  check_allowed_clients(config);
}

void leave_at_once() {
  worker_process::kill_workers();
  std::_Exit(static_cast<int>(Errc::interrupted));
}

int run_server(const server::ServerConfig& config, worker_process::ModelWorker* worker) {
  prepare(config);
  net::WebSocketOptions channel_options = channel_options_of(config);
  server::CentralData data = checked_data(config, worker);
  const server::RunPage::Fixed page_fixed = known_of_page(config);
  server::PageDesk desk = page_desk(config);

  asio::io_context io(1);
  asio::thread_pool pool(std::max(1U, std::thread::hardware_concurrency()));
  net::Listener listener(io.get_executor(), config.address, static_cast<std::uint16_t>(config.port));
  std::optional<net::Listener> admin;
  if (config.admin_port >= 0) {
    admin.emplace(io.get_executor(), config.admin_address, static_cast<std::uint16_t>(config.admin_port));
  }
  server::RunFolder folder(config.folder, config.federation.checkpoints, std::chrono::system_clock::now);
  server::LiveView view(std::cout, view_style(config), std::chrono::steady_clock::now);
  server::RunPage page(view, page_fixed, std::chrono::steady_clock::now, std::chrono::system_clock::now);
  server::Run run(io.get_executor(), pool, config, std::move(data), folder, page, std::chrono::steady_clock::now);
  page.watch([&run] { return run.status(); });
  if (has_page(config)) desk.page = &page;
  for (const std::string& line : server::announcement(config, listener.port())) spdlog::info("{}", line);
  if (admin) announce_admin(config, desk, admin->port());

  const auto stop = [&] {
    run.stop();
    listener.close();  // and with it the accept loop
  };
  // A server that ends in the middle of something goes on from its journal, as after a kill.
  const net::StopSignals signals(stop_signals(), [&io, &stop] { asio::post(io, stop); }, {.leave = leave_at_once});
  if (admin) folder.write_admin_port(admin->port());
  folder.write_port(listener.port());  // last: who sees it finds the rest, and may tell it to stop
  const auto connections = std::make_shared<net::AcceptorRecord>(static_cast<std::size_t>(config.max_handshakes),
                                                                 std::chrono::steady_clock::now);
  serve_clients(io, listener, run, channel_options, connections);
  if (admin) serve_admin(io, *admin, run, connections, channel_options.tls, desk);
  std::exception_ptr failure;
  auto running = run.run();
  asio::co_spawn(io, std::move(running), [&](std::exception_ptr ended, const nlohmann::json&) {
    failure = std::move(ended);
    listener.close();
    if (admin) admin->close();
    if (failure) run.stop();  // whoever is left must not keep the server alive
  });
  io.run();
  pool.join();
  if (failure) std::rethrow_exception(failure);
  view.finish("done: " + config.folder + "/summary.json, final.safetensors");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  server::ServerConfig config;
  Fields fields;
  server::declare_fields(fields, config);
  CLI::App app("Headstart server: coordinates one federation and leaves a run folder.");
  add_settings(
      app, fields,
      {"run.folder", "federation.clients", "federation.rounds", "data.set", "data.path", "model.name", "start.model",
       "validation.source", "listen.address", "listen.port", "tls.authority", "tls.certificate", "tls.key"});
  app.add_option("--back-to-round", config.back_to_round,
                 "Go back to the model of this round and go on from there, with the other settings as they were (0: "
                 "what round 1 starts from). Its checkpoint must still be there (checkpoints.keep); what came after it "
                 "is kept in the run's folder, in taken-back-1, taken-back-2 and so on")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--worker", config.worker.command,
                 "Command of your own that computes the model of model.name=state:FILE here (shared/worker_process)");
  app.add_flag("--insecure", config.insecure, "Listen beyond loopback without TLS (listen.insecure)");
  return run_program("headstart-server", app, argc, argv, [&] {
    server::check(config);
    const auto worker = take_up_model(config);
    return run_server(config, worker.get());
  });
}
