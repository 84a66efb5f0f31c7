// The client's side of the conversation: takes tasks, has the worker do them, sends results.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include <boost/asio/thread_pool.hpp>

#include "client/held_inputs.hpp"
#include "client/outbound.hpp"
#include "client/task_runner.hpp"
#include "client/worker.hpp"
#include "shared/base/clock.hpp"
#include "shared/base/error.hpp"
#include "shared/net/message_channel.hpp"

namespace headstart::client {

/// What a person or a log wants to know meanwhile. Called on the conversation's executor; default: nothing.
class ClientObserver {
 public:
  virtual ~ClientObserver() = default;
  virtual void on_joined(std::uint32_t /*num_present*/, std::uint32_t /*num_expected*/) {}
  virtual void on_task(const std::string& /*what*/) {}
  virtual void on_progress(std::uint64_t /*done*/, std::uint64_t /*total*/) {}
  virtual void on_result_refused(const std::string& /*reason*/) {}
  /// What the server wants those to know who run this client.
  virtual void on_notice(const std::string& /*words*/) {}
  /// Without a connection for now; the next attempt follows after `pause`.
  virtual void on_retry(const std::string& /*reason*/, std::chrono::milliseconds /*pause*/) {}
};

/// A refusal, with the server's reason as a quotation.
std::string refusal_words(const wire::Refused& refused);

/// The server cannot take this client now; a little later it may.
class NotYet : public Error {
 public:
  explicit NotYet(const std::string& reason) : Error(Errc::rejected, reason) {}
};

struct ClientContext {
  std::string name;
  Worker* worker = nullptr;  ///< Outlives the pool's work; called on `pool` only.
  net::asio::thread_pool* pool = nullptr;
  ClientObserver* observer = nullptr;
  Clock clock;
  std::stop_token stop;    ///< Ends the conversation; requested on the executor.
  Outbound outbound = {};  ///< What of its results leaves the silo.
};

/// The first message of a connection: who it is and what it can do.
wire::Hello greeting(const ClientContext& context);

/// What a client keeps from one connection to the next.
struct ClientState {
  ClientState(net::asio::any_io_executor executor, net::asio::thread_pool& pool, Clock clock)
      : runner(std::move(executor), pool, std::move(clock)) {}

  TaskRunner runner;
  std::string terms;  ///< Of the run that it joined, as they travelled; what follows belongs to them.
  wire::Join join;
  learn::Schema global_schema;
  HeldInputs inputs;
  std::uint64_t num_tasks_done = 0;
  std::uint64_t num_tasks_failed = 0;
};

/// Speaks over one connection until the server ends the run; returns the server's closing words. Runs on `executor`,
/// computes on the pool. Throws Error(rejected) when refused (NotYet where that may pass), Error(network | peer_closed)
/// when the connection is lost (work under way goes on in `state`), Error(protocol) when the server breaks the
/// protocol, Error(run_failed) where the server says that the run failed, and what the worker's join() throws.
net::Task<std::string> run_client(net::asio::any_io_executor executor, std::unique_ptr<net::MessageChannel> channel,
                                  ClientContext context, ClientState& state);

}  // namespace headstart::client
