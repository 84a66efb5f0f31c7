#include "shared/net/time.hpp"

#include <algorithm>
#include <condition_variable>
#include <utility>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "shared/base/error.hpp"

namespace headstart::net {

namespace {

/// Where an execution context keeps the time that governs it.
class Governor final : public asio::execution_context::service {
 public:
  static inline asio::execution_context::id id;

  explicit Governor(asio::execution_context& context, ManualTime* governing = nullptr)
      : service(context), time(governing) {}

  ManualTime* const time;

 private:
  void shutdown() override {}
};

/// A compute thread may be about to let go of the loop's last work: real time, which only a loop that hangs uses up.
constexpr std::chrono::seconds last_work{10};

constexpr auto never = asio::steady_timer::time_point::max();
constexpr auto long_ago = asio::steady_timer::time_point::min();

}  // namespace

ManualTime* manual_time_of(const asio::any_io_executor& executor) {
  return asio::use_service<Governor>(asio::query(executor, asio::execution::context)).time;
}

void RealTime::run(asio::io_context& io) { io.run(); }

Clock ManualTime::clock() const {
  return [this] { return now(); };
}

void ManualTime::govern(asio::io_context& io) {
  asio::make_service<Governor>(io, this);
  io_ = &io;
}

void ManualTime::run(asio::io_context& io) {
  while (true) {
    io.poll();
    if (io.stopped()) return;
    if (is_work_under_way()) {
      io.run_one();
    } else if (!advance() && io.run_one_for(last_work) == 0) {
      if (io.stopped()) return;
      throw Error(Errc::internal, "manual time: all that is left to do waits for what cannot come any more");
    }
  }
}

void ManualTime::rest(const std::stop_token& stop, TimePoint::duration span) {
  std::condition_variable changed;
  bool is_resting = false;
  bool is_over = false;
  // Whoever ends the rest counts the work again before anything else happens: time does not pass it by.
  const auto end = [&] {
    const std::lock_guard lock(mutex_);
    if (std::exchange(is_over, true)) return;
    if (is_resting) ++num_works_under_way_;
    changed.notify_one();
  };
  bool has_expired = false;
  const auto deadline = add(span, [&] {
    has_expired = true;
    end();
  });
  {
    const std::stop_callback on_stop(stop, end);
    std::unique_lock lock(mutex_);
    if (!is_over) {
      is_resting = true;
      --num_works_under_way_;
      asio::post(*io_, [] {});  // the loop looks again whether any work is under way
    }
    changed.wait(lock, [&] { return is_over; });
  }
  if (deadline && !has_expired) remove(*deadline);
}

std::optional<ManualTime::Deadlines::iterator> ManualTime::add(TimePoint::duration span, std::function<void()> expire) {
  const std::lock_guard lock(mutex_);
  if (span >= TimePoint::max() - now()) return std::nullopt;
  return deadlines_.emplace(now() + span, std::move(expire));
}

void ManualTime::remove(Deadlines::iterator deadline) {
  const std::lock_guard lock(mutex_);
  deadlines_.erase(deadline);
}

void ManualTime::begin_work() {
  const std::lock_guard lock(mutex_);
  ++num_works_under_way_;
}

void ManualTime::end_work() {
  const std::lock_guard lock(mutex_);
  --num_works_under_way_;
}

bool ManualTime::is_work_under_way() {
  const std::lock_guard lock(mutex_);
  return num_works_under_way_ > 0;
}

bool ManualTime::advance() {
  std::vector<std::function<void()>> due;
  {
    const std::lock_guard lock(mutex_);
    if (deadlines_.empty()) return false;
    const TimePoint next = deadlines_.begin()->first;
    now_ = std::max(now(), next).time_since_epoch().count();
    const auto end = deadlines_.upper_bound(next);
    for (auto deadline = deadlines_.begin(); deadline != end; ++deadline) due.push_back(std::move(deadline->second));
    deadlines_.erase(deadlines_.begin(), end);
  }
  for (const auto& expire : due) expire();
  return true;
}

Timer::Timer(const asio::any_io_executor& executor) : timer_(executor, never), manual_(manual_time_of(executor)) {}

Timer::Timer(const asio::any_io_executor& executor, TimePoint::duration span) : Timer(executor) { expires_after(span); }

Timer::~Timer() { forget_deadline(); }

void Timer::forget_deadline() {
  if (deadline_) manual_->remove(*std::exchange(deadline_, std::nullopt));
}

void Timer::reset(bool past) {
  forget_deadline();
  is_past_ = past;
  has_ended_ = false;
  timer_.expires_at(past ? long_ago : never);
}

void Timer::expires_after(TimePoint::duration span) {
  reset(span <= TimePoint::duration::zero());
  if (is_past_) return;
  if (manual_ == nullptr) {
    timer_.expires_after(span);
    return;
  }
  // It only has handlers posted: another timer of this instant is not destroyed before its turn.
  deadline_ = manual_->add(span, [this] {
    deadline_.reset();
    reset(true);
  });
}

void Timer::end() {
  reset(true);
  has_ended_ = true;
}

void Timer::cancel() { reset(false); }

Task<> Timer::wait() {
  if (is_past_) co_return;
  boost::system::error_code ended;
  auto waiting = timer_.async_wait(asio::redirect_error(asio::use_awaitable, ended));
  co_await std::move(waiting);
}

}  // namespace headstart::net
