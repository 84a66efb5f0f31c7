#include "server/announcement.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace headstart::server {
namespace {

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

std::string all_of(const ServerConfig& config) {
  return fmt::format("{}", fmt::join(announcement(config, 9840), "\n"));
}

TEST_CASE("a server without settings says what it is about to do, and which settings decide it") {
  const std::string text = all_of({});
  CHECK(contains(text, "data: fashion-mnist "));
  CHECK(contains(text, "10 are waited for (federation.clients), 5 updates make a round count"));
  CHECK(contains(text, "anybody who can reach the port"));
  CHECK(contains(text, "round 1 starts from: random (start.model); then 100 rounds of fedavg"));
  CHECK(contains(text, "listening on ws://127.0.0.1:9840, reached from this machine alone (listen.address)"));
  CHECK(contains(text, "run folder: runs/federation (run.folder)"));
}

TEST_CASE("a server with settings says what they are, and who may join") {
  ServerConfig config;
  config.data = {.set = "tensors", .path = "/data/central"};
  config.address = "0.0.0.0";
  config.tls.certificate = "server.pem";
  config.federation.start = StartModel::kd;
  config.federation.min_clients = 3;
  CHECK(contains(all_of(config), "data: tensors from /data/central"));
  CHECK(contains(all_of(config), "all that the authority has certified"));
  CHECK(contains(all_of(config), "listening on wss://0.0.0.0:9840, reached from other machines too (listen.address)"));
  CHECK(contains(all_of(config), "starts from: kd"));
  CHECK(contains(all_of(config), "3 updates make a round count"));
  config.allowed_clients = "allowed";
  CHECK(contains(all_of(config), "may join: those named in allowed"));
}

}  // namespace
}  // namespace headstart::server
