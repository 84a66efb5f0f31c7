// peers.json: what all peers of a run have alike. Each has its own copy; they compare digests when they greet.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "client/peer/round_machine.hpp"
#include "shared/base/fields.hpp"
#include "shared/learn/data/data_set.hpp"
#include "shared/learn/peers/graph.hpp"
#include "shared/learn/peers/peer_method.hpp"
#include "shared/plan/terms.hpp"

namespace headstart::peer {

struct Member {
  std::string name;
  std::string address;  ///< wss://HOST:PORT where it listens; empty: it dials and does not listen.
};

struct PeerTimeouts {
  double handshake = 10;  ///< Seconds, as all of these.
  double silence = 30;
  double absence = 600;
  double phase = 86400;
};

/// Of the run's samples, where no known data set says it.
struct SampleSettings {
  std::vector<std::string> classes;
  std::vector<std::int64_t> shape;
  std::vector<double> mean, deviation;
};

class PeersFile {
 public:
  /// Throws Error(usage) naming file, key, member or edge: an unknown key, a value out of bounds, two members of one
  /// name, an edge to nobody or one at whose ends nobody listens, a graph in pieces, a method that this graph or model
  /// cannot serve; Error(data) where the file cannot be read or is no JSON.
  static PeersFile load(const std::filesystem::path& file);
  /// The same of a document; `origin` opens its messages.
  static PeersFile parse(const nlohmann::json& document, const std::string& origin);

  /// Of members, edges and every setting, for people.
  static std::string help();

  [[nodiscard]] const std::vector<Member>& members() const { return members_; }
  /// Throws Error(usage), listing the members, where there is none of that name.
  [[nodiscard]] const Member& member(const std::string& name) const;
  [[nodiscard]] const learn::PeerGraph& graph() const { return *graph_; }
  /// In name order.
  [[nodiscard]] std::vector<std::string> neighbours_of(const std::string& name) const;
  /// Which end of an edge opens the connection: one that does not listen, or else the smaller name.
  [[nodiscard]] const std::string& dialler_of(const std::string& one, const std::string& other) const;

  [[nodiscard]] const learn::PeerOptions& options() const { return options_; }
  [[nodiscard]] const PeerTimeouts& timeouts() const { return timeouts_; }
  [[nodiscard]] Patience patience() const;
  /// What the silo works by. `script`: this silo's copy of a scripted model, in place of the one named here; may be
  /// empty. Throws Error(usage | data) where the settings do not say what a sample is.
  [[nodiscard]] plan::Terms terms(const std::string& script = {}) const;
  /// All settings as they were resolved.
  [[nodiscard]] const nlohmann::json& document() const { return document_; }

  /// SHA-256 of each part of what must be alike, by name. A script counts by its content and not by its path, and what
  /// stands at its default is as if it had been written.
  [[nodiscard]] std::map<std::string, std::string> digests(const std::string& script = {}) const;

 private:
  PeersFile() = default;
  void declare_fields(Fields& fields);
  void read_members(const nlohmann::json& document, const std::string& origin);
  void make_graph(const nlohmann::json& document, const std::string& origin);
  void check(const std::string& origin) const;
  void check_classes(const std::string& origin) const;
  void check_mixing(const std::string& origin) const;
  void check_edges(const std::string& origin) const;
  void check_recipients(const std::string& origin) const;
  [[nodiscard]] std::int64_t place_of(const std::string& name) const;

  std::int64_t seed_ = 1;
  learn::DataSource data_;
  SampleSettings samples_;
  double held_out_ = 0.1;
  learn::ModelSpec model_;
  learn::PretrainOptions pretrain_;
  learn::PeerOptions options_;
  std::int64_t min_neighbours_ = 0;
  learn::GraphOptions graph_options_;
  PeerTimeouts timeouts_;
  std::vector<Member> members_;
  std::optional<learn::PeerGraph> graph_;
  nlohmann::json document_;
};

/// The peer of a run as its method sees it, but for what only the silo has: samples, models, and weights.
learn::Peer peer_in(const PeersFile& file, const std::string& name);

}  // namespace headstart::peer
