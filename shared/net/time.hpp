// What time it is where coroutines run, and the timers that go by it.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <stop_token>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include "shared/base/clock.hpp"
#include "shared/net/task.hpp"

namespace boost::asio {
class io_context;
}  // namespace boost::asio

namespace headstart::net {

/// The time of an event loop. Its clock and its timers belong together; whoever runs the loop chooses them.
class Time {
 public:
  Time() = default;
  virtual ~Time() = default;
  Time(const Time&) = delete;
  Time& operator=(const Time&) = delete;

  /// Callable from any thread while this object lives.
  [[nodiscard]] virtual Clock clock() const = 0;
  /// Makes this the time of every Timer on `io`. To be called once, before there is one; this object outlives `io`.
  virtual void govern(asio::io_context& io) = 0;
  /// Runs `io` until it is out of work.
  virtual void run(asio::io_context& io) = 0;
};

/// Time as it passes: that of every event loop for which nothing else was chosen.
class RealTime final : public Time {
 public:
  /// `clock`: the one that steady timers go by.
  explicit RealTime(Clock clock) : clock_(std::move(clock)) {}

  [[nodiscard]] Clock clock() const override { return clock_; }
  void govern(asio::io_context& /*io*/) override {}
  void run(asio::io_context& io) override;

 private:
  Clock clock_;
};

/// Time that stands still while there is anything to do. Once no handler is ready and no offloaded work is under way,
/// it is the time of the next deadline. So nobody waits for a time limit, and no work is late because a machine is
/// slow. Deadlines of one instant come in the order in which they were set. For loops without sockets: bytes that are
/// under way hold nothing up. A loop that never comes to rest never gets on in time: let its work take some, by rest().
class ManualTime final : public Time {
 public:
  ManualTime() = default;

  [[nodiscard]] TimePoint now() const { return TimePoint(TimePoint::duration(now_.load())); }
  [[nodiscard]] Clock clock() const override;
  void govern(asio::io_context& io) override;
  /// Throws Error(internal) where all that is left to do waits for what cannot come any more.
  void run(asio::io_context& io) override;

  /// To be called by offloaded work, on its thread: lets time go on until `stop` is requested or `span` has passed.
  /// This is how a test has work take its time. The loop is being run meanwhile.
  void rest(const std::stop_token& stop, TimePoint::duration span = TimePoint::duration::max());

 private:
  friend class Timer;
  friend class WorkUnderWay;
  using Deadlines = std::multimap<TimePoint, std::function<void()>>;

  /// Has `expire` called, on the loop's thread, when `span` has passed; none where that is never.
  std::optional<Deadlines::iterator> add(TimePoint::duration span, std::function<void()> expire);
  void remove(Deadlines::iterator deadline);
  void begin_work();
  void end_work();
  [[nodiscard]] bool is_work_under_way();
  /// Goes to the next deadline; false where there is none.
  bool advance();

  std::atomic<TimePoint::rep> now_{std::chrono::duration_cast<TimePoint::duration>(std::chrono::hours(1)).count()};
  asio::io_context* io_ = nullptr;
  std::mutex mutex_;
  Deadlines deadlines_;          ///< Under mutex_, as is what follows.
  int num_works_under_way_ = 0;  ///< Those that rest are not counted.
};

/// The time that governs the context of `executor`; null where it is real time.
ManualTime* manual_time_of(const asio::any_io_executor& executor);

/// Marks offloaded work of a loop as under way while it lives, on the loop's thread.
class WorkUnderWay {
 public:
  explicit WorkUnderWay(const asio::any_io_executor& executor) : time_(manual_time_of(executor)) {
    if (time_ != nullptr) time_->begin_work();
  }
  ~WorkUnderWay() {
    if (time_ != nullptr) time_->end_work();
  }
  WorkUnderWay(const WorkUnderWay&) = delete;
  WorkUnderWay& operator=(const WorkUnderWay&) = delete;

 private:
  ManualTime* time_;
};

/// A deadline that coroutines and handlers wait for, by the time of the executor's context. It stays where it is made.
/// All calls on the executor.
class Timer {
 public:
  /// Not set: it does not expire.
  explicit Timer(const asio::any_io_executor& executor);
  /// Expires when `span` has passed.
  Timer(const asio::any_io_executor& executor, TimePoint::duration span);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  /// Ends pending waits and sets the timer anew. It has expired at once where `span` is not positive.
  void expires_after(TimePoint::duration span);
  /// Ends pending waits, and later ones at once until the timer is set anew.
  void end();
  [[nodiscard]] bool has_ended() const { return has_ended_; }
  /// Ends pending waits; the timer is not set any more.
  void cancel();

  /// Resumes when the timer has expired, or was ended, cancelled or set anew meanwhile.
  Task<> wait();
  /// Has `handler()` called then, also where the timer is destroyed meanwhile.
  template <class Handler>
  void on_end(Handler handler) {
    // Not left to the reactor, which sees a timer of the past a little later only.
    if (is_past_) return asio::post(timer_.get_executor(), std::move(handler));
    timer_.async_wait([handler = std::move(handler)](boost::system::error_code) mutable { handler(); });
  }

 private:
  void forget_deadline();
  /// `past`: it is expired from now on; otherwise it does not expire.
  void reset(bool past);

  asio::steady_timer timer_;  ///< By manual time, it is set to the end or to the beginning of all time.
  ManualTime* manual_;
  std::optional<ManualTime::Deadlines::iterator> deadline_;
  bool is_past_ = false;
  bool has_ended_ = false;  ///< By end().
};

}  // namespace headstart::net
