// What the schemes without chance share.
#pragma once

#include "shared/learn/partition/scheme.hpp"

namespace headstart::learn {

/// Splits counts evenly; the odd samples go round over all calls, so that no client collects them.
class EvenSplit {
 public:
  void add(std::int64_t count, const std::vector<std::size_t>& clients, std::size_t pool, Counts& counts) {
    const auto num_clients = static_cast<std::int64_t>(clients.size());
    for (const std::size_t client : clients) counts[client][pool] += count / num_clients;
    for (std::int64_t odd = 0; odd < count % num_clients; ++odd) ++counts[clients[turn_++ % clients.size()]][pool];
  }

 private:
  std::size_t turn_ = 0;
};

}  // namespace headstart::learn
