// A worker that takes its time, by manual time.
#pragma once

#include <memory>
#include <utility>

#include "shared/net/time.hpp"
#include "tests/support/delegating_worker.hpp"

namespace headstart::test {

/// Rests for `span` before each training, so that who waits meanwhile comes to its turn.
class UnhurriedWorker final : public DelegatingWorker {
 public:
  UnhurriedWorker(std::unique_ptr<client::Worker> inner, net::ManualTime& time, TimePoint::duration span)
      : DelegatingWorker(std::move(inner)), time_(time), span_(span) {}
  wire::PackedState train(const wire::PackedState& global, std::uint32_t round,
                          const client::TaskContext& context) override {
    time_.rest(context.stop, span_);
    return DelegatingWorker::train(global, round, context);
  }

 private:
  net::ManualTime& time_;
  TimePoint::duration span_;
};

}  // namespace headstart::test
