// headstart-peer: trains with its neighbours, without a server, until the rounds of peers.json are done.

#include <cmath>
#include <cstdlib>
#include <iostream>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "client/peer/peer_check.hpp"
#include "client/peer/peer_config.hpp"
#include "client/peer/peer_metrics.hpp"
#include "client/peer/peer_run.hpp"
#include "shared/base/cli.hpp"
#include "shared/base/log.hpp"
#include "shared/base/printable.hpp"
#include "shared/base/signals.hpp"
#include "shared/base/version.hpp"
#include "shared/learn/core/platform.hpp"
#include "shared/net/acceptor.hpp"
#include "shared/net/http.hpp"
#include "shared/net/receive_memory.hpp"
#include "shared/net/stop_signals.hpp"
#include "shared/net/tls.hpp"
#include "shared/net/websocket.hpp"

namespace {

using namespace headstart;
namespace asio = boost::asio;

std::string percent(double share) { return fmt::format("{:.1f}%", 100 * share); }

class LogObserver final : public peer::PeerObserver {
 public:
  void on_phase(const std::string& what) override {
    if (!what.empty()) spdlog::info("{}", what);
  }
  void on_progress(const learn::Progress& progress) override {
    spdlog::debug("{} of {} samples", progress.done, progress.total);
  }
  void on_connected(const std::string& neighbour, const std::string& address) override {
    spdlog::info("{} is connected ({})", neighbour, address);
  }
  void on_lost(const std::string& neighbour, const std::string& why) override {
    spdlog::warn("{} is not connected: {}", neighbour, why);
  }
  void on_waiting(std::int64_t round, const std::map<std::string, std::string>& for_whom) override {
    std::vector<std::string> words;
    for (const auto& [name, why] : for_whom) words.push_back(fmt::format("{} ({})", name, why));
    spdlog::info("round {} waits for {}", round, fmt::join(words, ", "));
  }
  void on_round(const peer::RoundLine& line) override {
    std::string words = line.round == 0 ? "pre-trained" : fmt::format("round {} is done", line.round);
    const auto head = line.figures.value("answering", std::size_t{0});
    for (const auto& [key, name] :
         {std::pair("global", "global"), std::pair("own", "own"), std::pair("held_out", "held-out")}) {
      if (line.figures.contains(key)) words += fmt::format(", {} {}", name, percent(line.figures.at(key).at(head)));
    }
    if (line.round > 0)
      words +=
          fmt::format("; {} messages, {:.2f} MB sent", line.used.size(), static_cast<double>(line.bytes_sent) / 1e6);
    spdlog::info("{}", words);
    for (const auto& [neighbour, why] : line.missing)
      spdlog::warn("round {} went on without {}: {}", line.round, neighbour, why);
  }
};

void refuse_open_network(const peer::PeerConfig& config, bool listens) {
  boost::system::error_code code;
  const asio::ip::address address = asio::ip::make_address(config.address, code);
  if (!listens || code || address.is_loopback() || config.insecure || config.tls.is_set()) return;
  throw Error(Errc::usage, "listen.address " + config.address +
                               " is not loopback and there is no TLS: models would travel in the clear. Set "
                               "tls.authority, tls.certificate and tls.key (headstart-pki makes them), or set "
                               "listen.insecure");
}

/// Every address must be of the kind that this side's files can serve.
void check_addresses(const peer::PeerConfig& config, const peer::PeersFile& file) {
  for (const std::string& neighbour : file.neighbours_of(config.name)) {
    for (const std::string& end : {neighbour, config.name}) {
      const std::string& address = file.member(end).address;
      if (address.empty()) continue;
      const bool is_secure = net::parse_url(address).is_secure;
      if (is_secure == config.tls.is_set()) continue;
      throw Error(Errc::usage, fmt::format("{}: the address of '{}' is {}, and tls.* is {}", config.peers, end, address,
                                           is_secure ? "not set" : "set; say wss://"));
    }
  }
}

std::uint16_t port_of(const peer::PeerConfig& config, const peer::Member& self) {
  if (config.port >= 0) return static_cast<std::uint16_t>(config.port);
  return net::parse_url(self.address).port;
}

/// Both sides of one peer, which listens and dials with the same certificate.
struct Channels {
  net::WebSocketOptions accepting, dialling;
};

Channels channels_of(const peer::PeerConfig& config, const peer::PeersFile& file, std::stop_token stop) {
  const auto milliseconds = [](double seconds) { return std::chrono::milliseconds(std::llround(1000 * seconds)); };
  Channels channels;
  channels.accepting.handshake_timeout = milliseconds(file.timeouts().handshake);
  channels.accepting.idle_timeout = milliseconds(file.timeouts().silence);
  channels.dialling = channels.accepting;
  channels.dialling.stop = std::move(stop);
  channels.accepting.requires_peer_certificate = true;
  if (!config.tls.is_set()) return channels;
  const auto on_load = [&config](const net::TlsExpiry& expiry) {
    net::log_expiry(config.tls, expiry, std::chrono::system_clock::now());
  };
  channels.accepting.tls = std::make_shared<net::Tls>(config.tls, net::Tls::Side::server, on_load);
  channels.dialling.tls = std::make_shared<net::Tls>(config.tls, net::Tls::Side::client);
  return channels;
}

client::SiloOptions silo_options(const peer::PeerConfig& config) {
  client::SiloOptions options{
      .name = config.name, .device = config.device, .own_model = {}, .script = config.script, .store = {}};
  if (!config.store.empty()) options.store = config.store;
  return options;
}

/// A peer before it talks to anybody: whatever can be known then has been checked.
struct Prepared {
  peer::PeersFile file;
  std::unique_ptr<peer::PeerLearner> learner;
  std::map<std::string, std::string> digests;
};

Prepared prepare(const peer::PeerConfig& config) {
  learn::return_freed_memory();
  Prepared done{.file = peer::PeersFile::load(config.peers), .learner = {}, .digests = {}};
  const peer::Member& self = done.file.member(config.name);
  check_addresses(config, done.file);
  refuse_open_network(config, !self.address.empty());
  learn::use_threads(config.threads);
  const learn::PeerMethodRow& method = learn::peer_method_row(done.file.options().method);
  done.learner = std::make_unique<peer::PeerLearner>(done.file, config.name, silo_options(config),
                                                     peer::load_data(config, method.needs_public_set));
  for (const std::string& remark : done.learner->remarks()) spdlog::warn("{}", remark);
  done.digests = done.file.digests(config.script);
  for (const auto& [section, digest] : done.learner->digests()) done.digests[section] = digest;
  return done;
}

/// Before there is a log.
void require_names(const peer::PeerConfig& config) {
  if (config.peers.empty()) throw Error(Errc::usage, "--peers peers.json is needed");
  if (config.name.empty()) throw Error(Errc::usage, "--name is needed: one of the members of peers.json");
  if (config.folder.empty())
    throw Error(Errc::usage, "run.folder is empty: name the folder that the run leaves its results in");
}

int check_peer(const peer::PeerConfig& config) {
  require_names(config);
  set_up_log(config.name, config.log, config.log_format);
  const Prepared prepared = prepare(config);
  asio::io_context io(1);
  std::stop_source stop;
  const net::StopSignals signals(stop_signals(), [&] { asio::post(io, [&stop] { stop.request_stop(); }); },
                                 {.leave = [] { std::_Exit(static_cast<int>(Errc::interrupted)); }});
  const Channels channels = channels_of(config, prepared.file, stop.get_token());
  const auto tell = [](const std::string& words) { std::cout << printable(words) << std::endl; };
  std::size_t num_unreachable = 0;
  auto checking =
      peer::check_neighbours(io.get_executor(), prepared.file, config.name, prepared.digests, channels.dialling, tell);
  std::exception_ptr failure;
  asio::co_spawn(io, std::move(checking), [&](std::exception_ptr ended, std::size_t count) {
    failure = std::move(ended);
    num_unreachable = count;
  });
  io.run();
  if (failure) std::rethrow_exception(failure);
  if (num_unreachable > 0) {
    throw Error(Errc::network, fmt::format("{} of the neighbours that this peer dials cannot take part as things are",
                                           num_unreachable));
  }
  return 0;
}

nlohmann::json run_record(const peer::PeerConfig& config, const Prepared& prepared) {
  return {{"headstart", std::string(version())},
          {"name", config.name},
          {"peers", prepared.file.document()},
          {"digests", prepared.digests},
          {"reproducible_with", learn::platform_record(config.device)}};
}

int run_peer(const peer::PeerConfig& config) {
  require_names(config);
  set_up_log(config.name, config.log, config.log_format);
  const Prepared prepared = prepare(config);
  peer::PeerFolder folder(config.folder, config.name, prepared.digests, run_record(config, prepared),
                          std::chrono::system_clock::now);
  if (!folder.damage().empty()) spdlog::warn("{}", folder.damage());
  if (folder.position().is_over) {
    spdlog::info("{}: the run is over; its model is final.safetensors", config.folder);
    return 0;
  }
  const peer::Member& self = prepared.file.member(config.name);
  asio::io_context io(1);
  asio::thread_pool pool(1);
  std::stop_source stop;
  const Channels channels = channels_of(config, prepared.file, stop.get_token());
  std::optional<net::Listener> listener, admin;
  if (!self.address.empty()) listener.emplace(io.get_executor(), config.address, port_of(config, self));
  if (config.admin_port >= 0) {
    admin.emplace(io.get_executor(), config.admin_address, static_cast<std::uint16_t>(config.admin_port));
  }
  LogObserver observer;
  const auto dial = [&](const std::string& neighbour) {
    net::WebSocketOptions options = channels.dialling;
    options.expected_name = neighbour;
    return net::connect(io.get_executor(), net::parse_url(prepared.file.member(neighbour).address), options);
  };
  peer::PeerRun run(
      {.executor = io.get_executor(),
       .pool = &pool,
       .observer = &observer,
       .clock = std::chrono::steady_clock::now,
       .dial = dial,
       .redial = {.first_pause = std::chrono::milliseconds(200), .longest_pause = std::chrono::seconds(15)}},
      prepared.file, config.name, prepared.digests, *prepared.learner, folder);
  const auto close = [&] {
    if (listener) listener->close();
    if (admin) admin->close();
    stop.request_stop();
  };
  const net::StopSignals signals(stop_signals(), [&] { asio::post(io, [&run] { run.stop(); }); },
                                 {.leave = [] { std::_Exit(static_cast<int>(Errc::interrupted)); }});
  std::vector<std::string> neighbours = prepared.learner->neighbours();
  spdlog::info("{} samples; neighbours: {}; method {}, {} rounds", prepared.learner->num_samples(),
               fmt::join(neighbours, ", "), prepared.file.options().method, prepared.file.options().rounds);
  const auto record = std::make_shared<net::AcceptorRecord>(static_cast<std::size_t>(config.max_handshakes),
                                                            std::chrono::steady_clock::now);
  if (admin) {
    folder.write_port("admin-port", admin->port());
    auto serving = net::serve_http(io.get_executor(), *admin, [&run](const net::HttpRequest& request) {
      return peer::answer_admin(request.path, run.status());
    });
    asio::co_spawn(io, std::move(serving), [](const std::exception_ptr&) {});
  }
  if (listener) {
    spdlog::info("listens on {}:{}", config.address, listener->port());
    folder.write_port("port", listener->port());
    const net::Admit admit = [&run](std::unique_ptr<net::MessageChannel> channel,
                                    std::function<void()> on_established) {
      return run.admit(std::move(channel), std::move(on_established));
    };
    const auto on_failure = [&folder](const std::string& peer, const std::string& reason) {
      folder.audit().report("handshake failed", [&] { return nlohmann::json{{"address", peer}, {"reason", reason}}; });
    };
    auto accepting = net::accept_loop(io.get_executor(), *listener, channels.accepting, record, admit, on_failure);
    asio::co_spawn(io, std::move(accepting), [](const std::exception_ptr&) {});
  }
  std::exception_ptr failure;
  auto running = run.run();
  asio::co_spawn(io, std::move(running), [&](std::exception_ptr ended, const nlohmann::json&) {
    failure = std::move(ended);
    close();
  });
  io.run();
  pool.join();
  if (failure) std::rethrow_exception(failure);
  spdlog::info("done: {0}/summary.json, {0}/final.safetensors", config.folder);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  peer::PeerConfig config;
  Fields fields;
  peer::declare_fields(fields, config);
  CLI::App app("Headstart peer: trains with its neighbours, without a server; the data never leaves.");
  add_settings(app, fields,
               {"peers", "name", "data.set", "data.path", "run.folder", "listen.address", "tls.authority",
                "tls.certificate", "tls.key"});
  add_path(app, "--peers", config.peers, "peers.json: what all peers of the run have alike");
  app.add_option("--name", config.name, "This peer's name among the members of peers.json");
  bool is_check = false;
  app.add_flag("--check", is_check,
               "Test peers.json, data, model and certificate, greet every neighbour that this peer dials, say what is "
               "wrong, and leave");
  bool shows_peers_help = false;
  app.add_flag("--help-peers", shows_peers_help, "Print the settings of peers.json");
  return run_program("headstart-peer", app, argc, argv, [&] {
    if (shows_peers_help) {
      std::cout << peer::PeersFile::help();
      return 0;
    }
    return is_check ? check_peer(config) : run_peer(config);
  });
}
