#include "client/peer/peers_file.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "shared/base/digest.hpp"
#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/base/names.hpp"
#include "shared/learn/peers/peer_method.hpp"
#include "shared/net/url.hpp"

namespace headstart::peer {

namespace {

using nlohmann::json;

constexpr const char* members_key = "members";
constexpr const char* edges_key = "edges";

[[noreturn]] void refuse(const std::string& origin, const std::string& what) {
  throw Error(Errc::usage, fmt::format("{}: {}", origin, what));
}

std::chrono::milliseconds milliseconds_of(double seconds) {
  return std::chrono::milliseconds(std::llround(1000 * seconds));
}

/// A text under `key` of a member.
std::string text_of(const json& member, const char* key, const std::string& where, bool is_needed) {
  if (!member.contains(key)) {
    if (is_needed) throw Error(Errc::usage, fmt::format("{}: '{}' is missing", where, key));
    return {};
  }
  if (!member.at(key).is_string()) throw Error(Errc::usage, fmt::format("{}: '{}' is no text", where, key));
  return member.at(key).get<std::string>();
}

Member member_of(const json& entry, std::size_t place, const std::string& origin) {
  const std::string where = fmt::format("{}: members[{}]", origin, place);
  if (!entry.is_object()) throw Error(Errc::usage, where + " is no object; expected {\"name\": ..., \"address\": ...}");
  for (const auto& [key, value] : entry.items()) {
    if (key != "name" && key != "address") {
      throw Error(Errc::usage, fmt::format("{}: unknown key '{}'; expected name and address", where, key));
    }
  }
  Member member{text_of(entry, "name", where, true), text_of(entry, "address", where, false)};
  if (!is_valid_client_name(member.name)) {
    throw Error(Errc::usage,
                fmt::format("{}: name '{}': expected 1 to 64 letters, digits, '.', '_' or '-'", where, member.name));
  }
  if (member.address.empty()) return member;
  try {
    (void)net::parse_url(member.address);
  } catch (const Error& error) {
    throw Error(Errc::usage, fmt::format("{} ({}): {}", where, member.name, error.what()));
  }
  return member;
}

}  // namespace

void PeersFile::declare_fields(Fields& fields) {
  fields.integer("seed", seed_, "Where all draws of the run come from.", {.min = 0, .max = 9007199254740992.0});
  learn::declare_fields(fields, "data", data_);
  for (const char* own : {"data.path", "data.side", "data.channels", "data.list"}) fields.withdraw(own);
  fields.group("data", "What a sample is, the same at all peers");
  fields.names("data.classes", samples_.classes,
               "Names of the classes by label, or their number; a known set needs none.");
  fields.integers("data.shape", samples_.shape, "Shape of a sample; a known set needs none.",
                  {1, static_cast<double>(learn::max_extent)});
  fields.numbers("data.mean", samples_.mean, "Per channel, subtracted from all values (uint8 divided by 255).",
                 {-1e30, 1e30});
  fields.numbers("data.deviation", samples_.deviation, "Per channel; values are divided by it after data.mean.",
                 {learn::smallest_deviation, 1e30});
  fields.number("data.held_out", held_out_,
                "Fraction of a peer's samples kept for the early stopping of its pre-training and for its figures.",
                {.min = 0, .max = 0.9});
  learn::declare_fields(fields, "model", model_);
  learn::declare_fields(fields, "pretrain", pretrain_);
  learn::declare_fields(fields, options_);
  fields.integer("peers.min_neighbours", min_neighbours_,
                 "Neighbours that a round must have heard of before it goes on without the others. 0: all.",
                 {.min = 0, .max = 1e5});
  learn::declare_fields(fields, "graph", graph_options_);
  fields.group("timeouts", "How long a peer waits, in seconds");
  fields.number("timeouts.handshake", timeouts_.handshake, "For the greetings of a new connection.", {0.1, 3600});
  fields.number("timeouts.silence", timeouts_.silence, "After which a neighbour that says nothing is lost.",
                {0.1, 3600});
  fields.number("timeouts.absence", timeouts_.absence,
                "For a neighbour that is not connected, until a round goes on without it (if peers.min_neighbours "
                "allows).",
                {0, 1e7});
  fields.number("timeouts.phase", timeouts_.phase, "For all neighbours of a round, connected or not.", {0.1, 1e7});
}

std::string PeersFile::help() {
  PeersFile file;
  Fields fields;
  file.declare_fields(fields);
  return "members\n    List of {\"name\": NAME, \"address\": \"wss://HOST:PORT\"}. A member without an address does "
         "not "
         "listen,\n    and dials its neighbours; at one end of each edge at least somebody listens.\n"
         "edges\n    List of [NAME, NAME], in place of graph.kind.\n" +
         fields.help();
}

PeersFile PeersFile::load(const std::filesystem::path& file) { return parse(read_json(file), file.string()); }

PeersFile PeersFile::parse(const json& document, const std::string& origin) {
  if (!document.is_object()) refuse(origin, "expected a JSON object");
  PeersFile file;
  json settings = document;
  settings.erase(members_key);
  settings.erase(edges_key);
  Fields fields;
  file.declare_fields(fields);
  try {
    fields.load(settings, origin);
  } catch (const Error& error) {
    std::string words = error.what();
    const std::string_view advice = "--help all";
    if (const auto place = words.find(advice); place != std::string::npos)
      words.replace(place, advice.size(), "--help-peers");
    throw Error(error.code(), words);
  }
  file.read_members(document, origin);
  file.make_graph(document, origin);
  file.check(origin);
  file.document_ = fields.resolved();
  file.document_[members_key] = json::array();
  for (const Member& member : file.members_) {
    file.document_[members_key].push_back({{"name", member.name}, {"address", member.address}});
  }
  if (document.contains(edges_key)) file.document_[edges_key] = document.at(edges_key);
  return file;
}

void PeersFile::read_members(const json& document, const std::string& origin) {
  if (!document.contains(members_key) || !document.at(members_key).is_array()) {
    refuse(origin, "'members' is missing: a list of {\"name\": ..., \"address\": \"wss://HOST:PORT\"}");
  }
  std::set<std::string> names;
  for (const json& entry : document.at(members_key)) {
    members_.push_back(member_of(entry, members_.size(), origin));
    if (!names.insert(members_.back().name).second) {
      refuse(origin, fmt::format("two members are called '{}'; each has a name of its own", members_.back().name));
    }
  }
  if (members_.size() < 2) refuse(origin, "an exchange needs 2 members at least");
}

std::int64_t PeersFile::place_of(const std::string& name) const {
  const auto found = std::ranges::find(members_, name, &Member::name);
  return found == members_.end() ? -1 : found - members_.begin();
}

void PeersFile::make_graph(const json& document, const std::string& origin) {
  const auto num_peers = std::ssize(members_);
  if (!document.contains(edges_key)) {
    if (graph_options_.kind == "edges") refuse(origin, "graph.kind edges: name them by 'edges': [[\"a\", \"b\"], ...]");
    try {
      graph_ = learn::make_graph(graph_options_, num_peers, Seed(static_cast<std::uint64_t>(seed_)).child("graph"));
    } catch (const Error& error) {
      refuse(origin, error.what());
    }
    return;
  }
  std::vector<learn::Edge> edges;
  for (const json& edge : document.at(edges_key)) {
    if (!edge.is_array() || edge.size() != 2 || !edge[0].is_string() || !edge[1].is_string()) {
      refuse(origin, fmt::format("edges[{}]: expected two names of members", edges.size()));
    }
    const auto one = edge[0].get<std::string>();
    const auto other = edge[1].get<std::string>();
    for (const std::string& end : {one, other}) {
      if (place_of(end) < 0)
        refuse(origin, fmt::format("the edge {} - {} leads to '{}', which is no member", one, other, end));
    }
    if (one == other) refuse(origin, fmt::format("the edge {} - {} leads from a member to itself", one, other));
    const learn::Edge places = std::minmax(place_of(one), place_of(other));
    if (std::ranges::find(edges, places) != edges.end()) {
      refuse(origin, fmt::format("the edge {} - {} is named twice", one, other));
    }
    edges.push_back(places);
  }
  graph_.emplace(num_peers, std::move(edges));
  if (graph_->is_connected()) return;
  std::vector<std::string> pieces;
  for (const auto& piece : graph_->components()) {
    std::vector<std::string> names;
    for (const learn::PeerIndex peer : piece) names.push_back(members_[static_cast<std::size_t>(peer)].name);
    pieces.push_back(fmt::format("{}", fmt::join(names, ", ")));
  }
  refuse(origin, fmt::format("the graph is in {} pieces: {}; add edges that join them", pieces.size(),
                             fmt::join(pieces, " | ")));
}

void PeersFile::check(const std::string& origin) const {
  const learn::PeerMethodRow& row = learn::peer_method_row(options_.method);
  if (row.needs_second_head && !model_.second_head) {
    refuse(origin, fmt::format("peers.method {} needs a model with two heads: set model.second_head", row.name));
  }
  if (timeouts_.handshake > timeouts_.silence || timeouts_.silence > timeouts_.phase) {
    refuse(origin, "timeouts must satisfy handshake <= silence <= phase");
  }
  check_classes(origin);
  check_edges(origin);
  if (row.ignores_graph) check_recipients(origin);
  if (options_.method == "gossip") check_mixing(origin);
}

void PeersFile::check_classes(const std::string& origin) const {
  const std::vector<std::string>& classes = samples_.classes;
  if (classes.empty()) return;
  if (classes.size() < 2 || std::ssize(classes) > learn::max_classes) {
    refuse(origin, fmt::format("data.classes: {} classes; expected 2 to {}", classes.size(), learn::max_classes));
  }
  try {
    learn::require_class_names(classes);
  } catch (const Error& error) {
    refuse(origin, fmt::format("data.classes: {}", error.what()));
  }
}

void PeersFile::check_mixing(const std::string& origin) const {
  for (std::size_t place = 0; place < members_.size(); ++place) {
    try {
      (void)learn::mixing_weights(*graph_, static_cast<learn::PeerIndex>(place));
    } catch (const Error& error) {
      refuse(origin, fmt::format("peers.method gossip: '{}': {}", members_[place].name, error.what()));
    }
  }
}

void PeersFile::check_edges(const std::string& origin) const {
  for (const auto& [one, other] : graph_->edges()) {
    const Member& a = members_[static_cast<std::size_t>(one)];
    const Member& b = members_[static_cast<std::size_t>(other)];
    if (a.address.empty() && b.address.empty()) {
      refuse(origin, fmt::format("nobody listens on the edge {} - {}: one of them needs an address at which the other "
                                 "can reach it",
                                 a.name, b.name));
    }
  }
}

/// A method may send beyond the graph (ProxyFL does): along what no connection leads.
void PeersFile::check_recipients(const std::string& origin) const {
  const auto method = learn::peer_method_row(options_.method).make(options_);
  constexpr std::int64_t rounds_to_look_at = 64;  // more than a ring of 2^63 peers has offsets
  for (const Member& member : members_) {
    const learn::Peer peer = peer_in(*this, member.name);
    for (std::int64_t round = 1; round <= std::min(options_.rounds, rounds_to_look_at); ++round) {
      for (const std::string& recipient : method->recipients(peer, round)) {
        if (std::ranges::binary_search(peer.neighbours, recipient)) continue;
        refuse(origin,
               fmt::format("peers.method {}: {} sends to {} in round {}, and no edge joins them; use graph.kind "
                           "full",
                           options_.method, member.name, recipient, round));
      }
    }
  }
}

const Member& PeersFile::member(const std::string& name) const {
  const std::int64_t place = place_of(name);
  if (place >= 0) return members_[static_cast<std::size_t>(place)];
  std::vector<std::string> names;
  for (const Member& one : members_) names.push_back(one.name);
  throw Error(Errc::usage,
              fmt::format("'{}' is no member of this run; its members are {}", name, fmt::join(names, ", ")));
}

std::vector<std::string> PeersFile::neighbours_of(const std::string& name) const {
  (void)member(name);
  std::vector<std::string> names;
  for (const learn::PeerIndex other : graph_->neighbours(place_of(name))) {
    names.push_back(members_[static_cast<std::size_t>(other)].name);
  }
  std::ranges::sort(names);
  return names;
}

const std::string& PeersFile::dialler_of(const std::string& one, const std::string& other) const {
  const Member& a = member(std::min(one, other));
  const Member& b = member(std::max(one, other));
  return b.address.empty() ? b.name : a.name;
}

Patience PeersFile::patience() const {
  return {milliseconds_of(timeouts_.absence), milliseconds_of(timeouts_.phase), min_neighbours_};
}

plan::Terms PeersFile::terms(const std::string& script) const {
  plan::Terms terms;
  terms.seed = seed_;
  terms.model = model_;
  if (!script.empty()) terms.model.name = "script:" + script;
  std::vector<std::int64_t> shape = samples_.shape;
  if (const auto known = learn::known_dataset(data_)) {
    terms.samples = learn::sample_terms(*known);
    if (shape.empty()) shape = known->task().shape;
  }
  if (!samples_.classes.empty()) terms.samples.classes = samples_.classes;
  if (!samples_.mean.empty()) terms.samples.mean = samples_.mean;
  if (!samples_.deviation.empty()) terms.samples.deviation = samples_.deviation;
  if (terms.samples.classes.empty() || shape.empty()) {
    throw Error(Errc::usage,
                fmt::format("data set '{}' does not say what a sample is: peers.json needs data.classes and "
                            "data.shape",
                            data_.set));
  }
  terms.task = {std::move(shape), std::ssize(terms.samples.classes)};
  terms.held_out = held_out_;
  terms.pretrain = pretrain_;
  terms.architecture = terms.model.architecture();
  plan::require_readable(terms);
  return terms;
}

std::map<std::string, std::string> PeersFile::digests(const std::string& script) const {
  std::map<std::string, std::string> digests;
  for (const auto& [key, value] : document_.items()) digests[key] = sha256_hex(value.dump());
  learn::ModelSpec model = model_;
  if (!script.empty()) model.name = "script:" + script;
  if (model.is_scripted()) digests["model"] = sha256_hex(model.architecture());
  return digests;
}

learn::Peer peer_in(const PeersFile& file, const std::string& name) {
  learn::Peer peer;
  peer.name = name;
  peer.neighbours = file.neighbours_of(name);
  for (const Member& member : file.members()) peer.everyone.push_back(member.name);
  const auto name_of = [&peer](learn::PeerIndex place) { return peer.everyone[static_cast<std::size_t>(place)]; };
  const learn::PeerGraph& graph = file.graph();
  for (const auto& [one, other] : graph.edges()) peer.edges.emplace_back(std::minmax(name_of(one), name_of(other)));
  const auto place = std::ranges::find(peer.everyone, name) - peer.everyone.begin();
  if (file.options().method == "gossip") {
    for (const auto& [other, weight] : learn::mixing_weights(graph, place).shares) peer.mixing[name_of(other)] = weight;
  }
  std::ranges::sort(peer.edges);
  std::ranges::sort(peer.everyone);
  return peer;
}

}  // namespace headstart::peer
