// A whole federation in one process: the same server and client code over loopback channels.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "client/worker.hpp"
#include "server/run/run.hpp"
#include "shared/net/time.hpp"

namespace headstart::lab {

struct SimulatedClient {
  std::string name;
  std::unique_ptr<client::Worker> worker;
  /// Wraps the client's end of each of its channels, for tests that delay or break it; empty: as it is.
  std::function<std::unique_ptr<net::MessageChannel>(std::unique_ptr<net::MessageChannel>)> wrap;
  /// Called when its part is over, with what ended it; null: the server has told it that the run is done.
  std::function<void(const std::exception_ptr&)> on_end = {};
};

/// Runs one federation to its end, every client's work and the server's on `num_threads` compute threads, by `time`.
/// Returns the summary; throws as Run::run() does. What ends a client is logged and costs the run that client; a
/// run that has not begun and waits for one that has ended is over: Error(run_failed), with that client's words.
/// `on_stop` is given what stops the run: before it returns where it is called by an observer, soon on another thread.
nlohmann::json simulate(const server::ServerConfig& config, server::CentralData data, server::RunFolder& folder,
                        server::RunObserver& observer, std::vector<SimulatedClient> clients, std::size_t num_threads,
                        net::Time& time, const std::function<void(std::function<void()>)>& on_stop = {});

}  // namespace headstart::lab
