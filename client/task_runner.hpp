// One job at a time, which outlives the connection that asked for it.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include <boost/asio/thread_pool.hpp>

#include "client/assignment.hpp"
#include "client/outbound.hpp"
#include "shared/net/signal.hpp"

namespace headstart::client {

/// A connection that is lost does not stop the work: asked for the same job again, by the same server or by one that
/// was restarted, the client goes on or hands out what it has. All calls on `executor`; the work runs on `pool`.
class TaskRunner {
 public:
  using Result = ReleasedResult;
  using Work = std::function<Result(const TaskContext&)>;
  using ProgressListener = std::function<void(const learn::Progress&)>;

  TaskRunner(net::asio::any_io_executor executor, net::asio::thread_pool& pool, Clock clock);

  enum class Found { nothing, under_way, done };
  /// What result_of(key) would go on from.
  [[nodiscard]] Found find(const std::string& key) const;

  /// The result of the job `key`: the one that is there, done or under way, or else a new one, for which what lies
  /// there is stopped and dropped. An empty key is never found again. `listener` is told of progress at a few calls a
  /// second. Throws what the work threw (the job is then gone), and what `check` throws, which is called whenever
  /// the runner was woken.
  net::Task<Result> result_of(std::string key, Work work, ProgressListener listener, std::function<void()> check);

  /// Stops what is under way and forgets it: its result is not wanted any more.
  void drop();
  /// Resumes when nothing is under way.
  net::Task<> idle(std::function<void()> check);
  /// Has whoever waits here call its check.
  void wake() { state_->changed.notify(); }

 private:
  struct Job;
  struct State {
    explicit State(const net::asio::any_io_executor& executor) : changed(executor) {}
    net::Signal changed;
    int num_running = 0;
  };
  static net::Task<> run(std::shared_ptr<State> state, std::shared_ptr<Job> piece, net::asio::thread_pool& pool,
                         Clock clock);

  net::asio::any_io_executor executor_;
  net::asio::thread_pool& pool_;
  Clock clock_;
  std::shared_ptr<State> state_;  ///< Shared with the work, which may end after the runner.
  std::shared_ptr<Job> job_;
};

}  // namespace headstart::client
