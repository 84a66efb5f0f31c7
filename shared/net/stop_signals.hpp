// How a program ends when it is told to: in order if it can, and in any case.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

namespace headstart::net {

struct StopOptions {
  std::chrono::milliseconds grace = std::chrono::seconds(4);
  std::function<void()> leave;  ///< Ends the process, on the thread of the signals; what it was doing is left as it is.
};

/// Takes the signals of the process while it lives, and to the end of the process once one has come. The first one
/// calls `stop`, on a thread of its own, from which the program is expected to end within `grace`. A second signal, or
/// the end of that time, calls `leave`: a computation or a peer that does not let go keeps no program alive.
class StopSignals {
 public:
  StopSignals(const std::vector<int>& signals, std::function<void()> stop, StopOptions options);
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace headstart::net
