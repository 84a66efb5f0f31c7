#include "client/task_runner.hpp"

#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>

#include "shared/base/error.hpp"
#include "shared/net/offload.hpp"

namespace headstart::client {

struct TaskRunner::Job {
  std::string key;
  Work work;
  ProgressListener listener;
  std::stop_source stop;
  TimePoint began_at{};
  bool is_done = false;
  std::optional<Result> result;
  std::exception_ptr failure;
};

TaskRunner::TaskRunner(net::asio::any_io_executor executor, net::asio::thread_pool& pool, Clock clock)
    : executor_(std::move(executor)),
      pool_(pool),
      clock_(std::move(clock)),
      state_(std::make_shared<State>(executor_)) {}

TaskRunner::Found TaskRunner::find(const std::string& key) const {
  if (!job_ || key.empty() || job_->key != key) return Found::nothing;
  return job_->is_done ? Found::done : Found::under_way;
}

net::Task<TaskRunner::Result> TaskRunner::result_of(std::string key, Work work, ProgressListener listener,
                                                    std::function<void()> check) {
  if (find(key) == Found::nothing) {
    drop();
    auto emptying = idle(check);  // the worker does one thing at a time
    co_await std::move(emptying);
    job_ = std::make_shared<Job>();
    job_->key = std::move(key);
    job_->work = std::move(work);
    job_->began_at = clock_();
    ++state_->num_running;
    auto running = run(state_, job_, pool_, clock_);
    net::asio::co_spawn(executor_, std::move(running), [](const std::exception_ptr& failure) {
      if (failure) std::rethrow_exception(failure);
    });
  }
  const std::shared_ptr<Job> piece = job_;
  piece->listener = std::move(listener);
  while (!piece->is_done) {
    check();
    co_await state_->changed.wait();
  }
  check();
  if (piece->failure) {
    if (job_ == piece) job_.reset();
    std::rethrow_exception(piece->failure);
  }
  co_return *piece->result;
}

void TaskRunner::drop() {
  if (job_) job_->stop.request_stop();
  job_.reset();
}

net::Task<> TaskRunner::idle(std::function<void()> check) {
  while (state_->num_running > 0) {
    check();
    co_await state_->changed.wait();
  }
}

net::Task<> TaskRunner::run(std::shared_ptr<State> state, std::shared_ptr<Job> piece, net::asio::thread_pool& pool,
                            Clock clock) {
  constexpr std::chrono::milliseconds between_reports{250};
  const auto executor = co_await net::asio::this_coro::executor;
  const auto report = [between_reports, executor, clock, weak = std::weak_ptr(piece), next = TimePoint{},
                       is_all_told = false](const learn::Progress& progress) mutable {
    const TimePoint now = clock();
    const bool is_all = progress.done >= progress.total;
    if (now < next && (!is_all || is_all_told)) return;
    is_all_told = is_all;
    next = now + between_reports;
    net::asio::post(executor, [weak, progress] {
      const auto held = weak.lock();
      if (held && !held->is_done && held->listener) held->listener(progress);
    });
  };
  const TaskContext context{report, piece->stop.get_token(), piece->began_at, clock};
  try {
    auto working = net::offload(pool, [&piece, &context] { return piece->work(context); });
    piece->result = co_await std::move(working);
  } catch (...) {
    piece->failure = std::current_exception();
  }
  piece->work = nullptr;  // with the models that it holds
  piece->is_done = true;
  --state->num_running;
  state->changed.notify();
}

}  // namespace headstart::client
