#include "client/peer/peer_folder.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "shared/base/error.hpp"
#include "shared/base/log.hpp"

namespace headstart::peer {

namespace {

using nlohmann::json;

constexpr const char* states_folder = "states";
constexpr const char* messages_folder = "messages";

/// The names under which `mine` and `theirs` differ, or that one of them lacks.
std::vector<std::string> differences(const std::map<std::string, std::string>& mine,
                                     const std::map<std::string, std::string>& theirs) {
  std::vector<std::string> names;
  for (const auto& [name, digest] : mine) {
    const auto found = theirs.find(name);
    if (found == theirs.end() || found->second != digest) names.push_back(name);
  }
  for (const auto& [name, digest] : theirs) {
    if (!mine.contains(name)) names.push_back(name);
  }
  return names;
}

/// Neighbours would take a damaged message for this peer's fault.
bool is_whole(const KeptMessage& message) {
  if (!is_there(message.file, Errc::storage)) return false;
  try {
    return wire::load_safetensors(message.file).model.digest() == message.digest;
  } catch (const Error& error) {
    spdlog::warn("{}; it is not sent any more", error.what());
    return false;
  }
}

/// Of the first event. Throws Error(data).
std::map<std::string, std::string> digests_begun_with(const json& began, const std::string& file, std::string& name) {
  try {
    if (began.at("event") == "began") {
      began.at("name").get_to(name);
      return began.at("digests").get<std::map<std::string, std::string>>();
    }
  } catch (const json::exception&) {
    // Said below.
  }
  throw Error(Errc::data, file +
                              ": line 1 does not say how the run began; it cannot be gone on with. Put a backup in its "
                              "place, or name another run.folder");
}

}  // namespace

json to_json(const RoundLine& line) {
  return {{"round", line.round},
          {"prepared", line.prepared},
          {"used", line.used},
          {"missing", line.missing},
          {"sha256", line.digest},
          {"figures", line.figures},
          {"bytes_sent", line.bytes_sent},
          {"bytes_received", line.bytes_received},
          {"seconds_working", line.seconds_working},
          {"seconds_waiting", line.seconds_waiting}};
}

RoundLine round_line_of(const json& line) {
  try {
    RoundLine round;
    line.at("round").get_to(round.round);
    line.at("prepared").get_to(round.prepared);
    line.at("used").get_to(round.used);
    line.at("missing").get_to(round.missing);
    line.at("sha256").get_to(round.digest);
    round.figures = line.at("figures");
    line.at("bytes_sent").get_to(round.bytes_sent);
    line.at("bytes_received").get_to(round.bytes_received);
    line.at("seconds_working").get_to(round.seconds_working);
    line.at("seconds_waiting").get_to(round.seconds_waiting);
    return round;
  } catch (const json::exception& error) {
    throw Error(Errc::data, fmt::format("a round's line is damaged: {}", error.what()));
  }
}

PeerFolder::PeerFolder(const std::filesystem::path& folder, const std::string& name,
                       const std::map<std::string, std::string>& digests, const json& run, WallClock wall_clock)
    : folder_(folder) {
  const bool is_new = !is_there(folder_ / "journal", Errc::storage);
  if (is_new && is_there(folder_, Errc::storage) && !entries_in(folder_, Errc::storage).empty()) {
    throw Error(Errc::storage,
                fmt::format("{}: is not empty and holds no run of a peer; name another run.folder", folder_.string()));
  }
  make_private_folder(folder_);
  for (const char* part : {states_folder, messages_folder}) make_private_folder(folder_ / part);
  journal_ = std::make_unique<Journal>(folder_ / "journal");
  if (journal_->earlier().empty()) {
    write_text_atomically(folder_ / "run.json", run.dump(2) + "\n");
    journal_->append({{"event", "began"}, {"name", name}, {"digests", digests}});
  } else {
    std::string was;
    const auto then = digests_begun_with(journal_->earlier().front(), (folder_ / "journal").string(), was);
    if (const auto differ = differences(digests, then); !differ.empty()) {
      throw Error(Errc::usage, fmt::format("run.folder {}: its run was begun with another {}; name another folder, or "
                                           "give back the settings that it was begun with",
                                           folder_.string(), fmt::join(differ, ", ")));
    }
    if (was != name) {
      throw Error(Errc::usage,
                  fmt::format("run.folder {}: is of peer '{}', and this is '{}'", folder_.string(), was, name));
    }
    resume();
  }
  audit_ = std::make_unique<EventLog>(folder_ / "audit.jsonl", std::move(wall_clock));
  std::string text;
  for (const RoundLine& line : lines_) text += to_line(to_json(line)) + "\n";
  write_text_atomically(folder_ / "rounds.jsonl", text);
  rounds_ = std::make_unique<LineFile>(folder_ / "rounds.jsonl");
}

void PeerFolder::resume() {
  try {
    for (const json& event : journal_->earlier()) {
      const auto what = event.at("event").get<std::string>();
      if (what == "prepared") {
        const auto round = event.at("round").get<std::int64_t>();
        position_.prepared.push_back(round);
        position_.state = event.at("state").get<std::string>();
        if (event.contains("message")) {
          messages_[round] = {message_file(round), event.at("bytes").get<std::uint64_t>(),
                              event.at("message").get<std::string>()};
        }
      } else if (what == "combined") {
        lines_.push_back(round_line_of(event.at("line")));
        position_.round = lines_.back().round;
        position_.prepared.clear();
        position_.state = lines_.back().digest;
      } else if (what == "finished") {
        position_.is_over = true;
      }
    }
  } catch (const json::exception& error) {
    throw Error(Errc::data, fmt::format("{}: an event is damaged: {}", (folder_ / "journal").string(), error.what()));
  }
  std::erase_if(messages_, [](const auto& kept) { return !is_whole(kept.second); });
}

std::filesystem::path PeerFolder::state_file(const std::string& digest) const {
  return folder_ / states_folder / (digest + ".safetensors");
}

std::filesystem::path PeerFolder::message_file(std::int64_t round) const {
  return folder_ / messages_folder / fmt::format("round-{:06}.safetensors", round);
}

learn::StateDict PeerFolder::state() const {
  const std::filesystem::path file = state_file(position_.state);
  wire::ModelFile kept = wire::load_safetensors(file);
  if (kept.model.digest() != position_.state) {
    throw Error(Errc::data, fmt::format("{}: is damaged: its bytes have another SHA-256 than its name; without it the "
                                        "run cannot go on from this folder",
                                        file.string()));
  }
  return kept.model.state();
}

void PeerFolder::keep_state(const wire::PackedState& state, const std::string& digest) {
  wire::save_safetensors(state_file(digest), state);
  position_.state = digest;
}

void PeerFolder::keep_prepared(std::int64_t round, const wire::PackedState& state,
                               const std::optional<wire::PackedState>& message) {
  const std::string digest = state.digest();
  const std::string before = position_.state;
  keep_state(state, digest);
  json event = {{"event", "prepared"}, {"round", round}, {"state", digest}};
  if (message) {
    KeptMessage kept{message_file(round), message->bytes().size(), message->digest()};
    wire::save_safetensors(kept.file, *message);
    event["message"] = kept.digest;
    event["bytes"] = kept.num_bytes;
    messages_[round] = std::move(kept);
  }
  journal_->append(event);
  position_.prepared.push_back(round);
  if (before != digest && !before.empty()) remove_file(state_file(before));
  while (!messages_.empty() && messages_.begin()->first < round - 1) {
    remove_file(messages_.begin()->second.file);
    messages_.erase(messages_.begin());
  }
}

void PeerFolder::keep_combined(RoundLine line, const wire::PackedState& state) {
  line.digest = state.digest();
  line.prepared = position_.prepared;
  const std::string before = position_.state;
  keep_state(state, line.digest);
  journal_->append({{"event", "combined"}, {"line", to_json(line)}});
  position_.round = line.round;
  position_.prepared.clear();
  if (before != line.digest && !before.empty()) remove_file(state_file(before));
  rounds_->append(to_json(line));
  lines_.push_back(std::move(line));
}

void PeerFolder::finish(const json& summary, const wire::PackedState& model, const wire::Metadata& metadata) {
  wire::save_safetensors(folder_ / "final.safetensors", model, metadata);
  write_text_atomically(folder_ / "summary.json", summary.dump(2) + "\n");
  journal_->append({{"event", "finished"}});
  position_.is_over = true;
  for (const char* part : {states_folder, messages_folder}) {
    for (const std::filesystem::path& file : entries_in(folder_ / part, Errc::storage)) remove_file(file);
  }
}

void PeerFolder::write_port(const std::string& file, std::uint16_t port) const {
  write_text_atomically(folder_ / file, std::to_string(port) + "\n");
}

}  // namespace headstart::peer
