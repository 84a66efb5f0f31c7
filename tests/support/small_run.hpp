// A federation small enough for a test: four silos of unequal size, a separable problem, a BatchNorm model.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "client/local_worker.hpp"
#include "server/run/run.hpp"

namespace headstart::test {

inline constexpr std::int64_t small_num_clients = 4;

/// FedAvg over three rounds, one epoch each, on 12x12 images of three classes, every checkpoint kept.
server::ServerConfig small_config(const std::filesystem::path& folder);

/// Test, validation and transfer sets of the same problem.
server::CentralData small_central_data();

/// The samples of client `index`: 20, 30, 40 and 50 of them, with skewed classes.
learn::Samples small_samples(std::int64_t index);

std::unique_ptr<client::LocalWorker> small_worker(std::int64_t index, client::SiloOptions options = {});

std::string small_name(std::int64_t index);

/// The raw bytes of every checkpoint of a run, in order.
std::vector<std::string> checkpoints_of(const std::filesystem::path& folder);

}  // namespace headstart::test
