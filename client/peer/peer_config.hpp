// A peer's own settings: who it is, where its data lie, where it listens. What all peers have alike is in peers.json.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "shared/base/fields.hpp"
#include "shared/base/log.hpp"
#include "shared/learn/data/data_set.hpp"
#include "shared/net/tls_files.hpp"

namespace headstart::peer {

struct PeerConfig {
  std::string peers;  ///< The file that all have alike.
  std::string name;
  std::string folder = "run";
  std::string address = "127.0.0.1";
  std::int64_t port = -1;  ///< -1: the one of its address in peers.json.
  bool insecure = false;
  std::int64_t max_handshakes = 64;
  std::string admin_address = "127.0.0.1";
  std::int64_t admin_port = -1;
  net::TlsFiles tls;
  learn::DataSource data;
  std::string manifest;     ///< Where the silo's samples are a share of a data set that all have.
  std::int64_t share = -1;  ///< Which client of the manifest.
  bool evaluates_test = false;
  learn::DataSource public_data;
  std::string script;
  std::string store;
  std::string device = "cpu";
  std::int64_t threads = 1;
  std::string log = "info";
  LogFormat log_format = LogFormat::text;
};

void declare_fields(Fields& fields, PeerConfig& config);

/// Samples of one silo, and what it is judged by.
struct PeerData {
  learn::Dataset own;
  std::optional<learn::Dataset> test;            ///< None: it is judged by its held-out samples alone.
  std::optional<learn::Dataset> public_samples;  ///< The same at all peers; none: there are none.
};
/// Throws Error(usage | data).
PeerData load_data(const PeerConfig& config, bool needs_public_set);

}  // namespace headstart::peer
