#include "client/outbound.hpp"

#include <new>
#include <string_view>
#include <utility>

#include <c10/util/Exception.h>

#include "shared/base/error.hpp"
#include "shared/worker_process/worker_link.hpp"

namespace headstart::client {

ReleasedResult Outbound::release(const Assignment& assignment, TaskResult result) const {
  for (const Step& step : steps_) result = step(assignment, std::move(result));
  return {std::move(result.figures), std::move(result.state)};
}

wire::Failure Outbound::release(const std::exception& failure) {
  if (dynamic_cast<const std::bad_alloc*>(&failure) != nullptr) return wire::Failure::memory;
  if (dynamic_cast<const c10::OutOfMemoryError*>(&failure) != nullptr) return wire::Failure::memory;
  if (dynamic_cast<const worker_process::WorkerFailed*>(&failure) != nullptr) return wire::Failure::worker;
  const auto* error = dynamic_cast<const Error*>(&failure);
  if (error == nullptr) {
    // On the CPU LibTorch has no type of its own for it.
    const bool lacks_memory = std::string_view(failure.what()).find("DefaultCPUAllocator") != std::string_view::npos;
    return lacks_memory ? wire::Failure::memory : wire::Failure::internal;
  }
  switch (error->code()) {
    case Errc::data:
      return wire::Failure::data;
    case Errc::usage:
    case Errc::protocol:  // what the task asks for
      return wire::Failure::settings;
    case Errc::storage:
      return wire::Failure::storage;
    case Errc::run_failed:
      return wire::Failure::training;
    default:
      return wire::Failure::internal;
  }
}

}  // namespace headstart::client
