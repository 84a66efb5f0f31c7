// Who does the work of a client.
#pragma once

#include <memory>

#include "client/config.hpp"
#include "client/worker.hpp"

namespace headstart::client {

/// The worker that the settings name: a process of the silo's own, or this program on the silo's own samples. Throws
/// Error(usage | data).
std::unique_ptr<Worker> make_worker(const ClientConfig& config);

}  // namespace headstart::client
