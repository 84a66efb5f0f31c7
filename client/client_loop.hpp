// The client's side of the conversation: takes tasks, has the worker do them, sends results.
#pragma once

#include <memory>
#include <stop_token>
#include <string>

#include <boost/asio/thread_pool.hpp>

#include "client/worker.hpp"
#include "shared/base/clock.hpp"
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
};

struct ClientContext {
  std::string name;
  Worker* worker = nullptr;  ///< Outlives the loop; called on `pool` only.
  net::asio::thread_pool* pool = nullptr;
  ClientObserver* observer = nullptr;
  Clock clock;
  std::stop_token stop;  ///< Ends the conversation; requested on the executor.
};

/// Speaks until the server ends the run; returns the server's closing words. Runs on `executor`, computes on the pool.
/// Throws Error(rejected) when refused, Error(network | peer_closed) when the connection is lost (work under way is
/// then stopped), Error(protocol) when the server breaks the protocol, and what the worker's join() throws.
net::Task<std::string> run_client(net::asio::any_io_executor executor, std::unique_ptr<net::MessageChannel> channel,
                                  ClientContext context);

}  // namespace headstart::client
