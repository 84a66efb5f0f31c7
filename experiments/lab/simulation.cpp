#include "experiments/lab/simulation.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>

#include "client/stay_in_run.hpp"
#include "shared/base/log.hpp"
#include "shared/net/loopback.hpp"

namespace headstart::lab {

nlohmann::json simulate(const server::ServerConfig& config, server::CentralData data, server::RunFolder& folder,
                        server::FederationObserver& observer, std::vector<SimulatedClient> clients,
                        std::size_t num_threads, const Clock& clock,
                        const std::function<void(std::function<void()>)>& on_stop) {
  namespace asio = boost::asio;
  asio::io_context io(1);
  asio::thread_pool pool(num_threads);
  server::Federation federation(io.get_executor(), pool, config, std::move(data), folder, observer, clock);
  if (on_stop) on_stop([&io, &federation] { asio::dispatch(io, [&federation] { federation.stop(); }); });
  client::ClientObserver silent;
  bool is_over = false;
  const net::RedialOptions redial{.patience = std::chrono::seconds(10),
                                  .first_pause = std::chrono::milliseconds(1),
                                  .longest_pause = std::chrono::milliseconds(50)};
  for (SimulatedClient& simulated : clients) {
    const auto dial = [&]() -> net::Task<std::unique_ptr<net::MessageChannel>> {
      if (is_over) throw Error(Errc::rejected, "the run is over");
      net::LoopbackPair pair = net::make_loopback(io.get_executor(), io.get_executor(), simulated.name);
      if (simulated.wrap) pair.second = simulated.wrap(std::move(pair.second));
      auto admission = federation.admit(std::move(pair.first));
      asio::co_spawn(io, std::move(admission), [](const std::exception_ptr& failure) {
        if (failure) std::rethrow_exception(failure);
      });
      co_return std::move(pair.second);
    };
    auto running = client::stay_in_run(io.get_executor(), dial,
                                       {simulated.name, simulated.worker.get(), &pool, &silent, clock, {}}, redial);
    asio::co_spawn(
        io, std::move(running),
        [name = simulated.name, on_end = simulated.on_end](const std::exception_ptr& failure, const std::string&) {
          if (on_end) on_end(failure);
          if (!failure) return;
          try {
            std::rethrow_exception(failure);
          } catch (const std::exception& error) {
            spdlog::warn("client {}: {}", name, error.what());
          }
        });
  }
  std::exception_ptr failure;
  nlohmann::json summary;
  auto running = federation.run();
  asio::co_spawn(io, std::move(running), [&](std::exception_ptr ended, nlohmann::json result) {
    is_over = true;
    failure = std::move(ended);
    summary = std::move(result);
    if (failure) federation.stop();  // whoever is left must not keep the simulation alive
  });
  io.run();
  pool.join();
  if (failure) std::rethrow_exception(failure);
  return summary;
}

}  // namespace headstart::lab
