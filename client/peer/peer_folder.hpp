// What a peer leaves behind, and what it goes on from when it is started again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "shared/base/event_log.hpp"
#include "shared/base/files.hpp"
#include "shared/base/journal.hpp"
#include "shared/wire/safetensors.hpp"

namespace headstart::peer {

/// A message as it lies on the disk.
struct KeptMessage {
  std::filesystem::path file;
  std::uint64_t num_bytes = 0;
  std::string digest;  ///< SHA-256 of the raw bytes.
};

/// One round of rounds.jsonl. What a peer computes in a round is a function of its state, of `prepared` and of `used`.
struct RoundLine {
  std::int64_t round = 0;
  /// Whose message it made since the line before: this round, and before it those that it did not combine, as its
  /// neighbours had gone on. Rounds between two lines that do not stand here were left out altogether.
  std::vector<std::int64_t> prepared;
  std::map<std::string, std::string> used;           ///< Digest of the message, by sender.
  std::map<std::string, std::string> missing;        ///< Reason, by neighbour.
  std::string digest;                                ///< Of the state after the round.
  nlohmann::json figures;                            ///< PeerLearner::judge().
  std::uint64_t bytes_sent = 0, bytes_received = 0;  ///< Payload of all neighbours' connections, in this process.
  double seconds_working = 0, seconds_waiting = 0;
};
nlohmann::json to_json(const RoundLine& line);
/// Throws Error(data).
RoundLine round_line_of(const nlohmann::json& line);

///   run.json            peers.json as resolved, the peer's name, version and platform
///   journal             what was done, for a peer that is started again
///   rounds.jsonl        one line a round, from 0 (pre-training)
///   audit.jsonl         who came, what was sent to whom and what came from whom
///   summary.json        when the run is over
///   final.safetensors   the model after the last round
///   states/, messages/  until the run is over: its state, and its messages of the last two rounds
class PeerFolder {
 public:
  /// Makes the folder, or opens that of an earlier process of the same peer, to go on. `digests`: of what all must have
  /// alike. Throws Error(storage): it holds something else, another process is at work in it, it cannot be made;
  /// Error(usage): it is of another run, naming what differs.
  PeerFolder(const std::filesystem::path& folder, const std::string& name,
             const std::map<std::string, std::string>& digests, const nlohmann::json& run, WallClock wall_clock);

  [[nodiscard]] const std::filesystem::path& path() const { return folder_; }
  [[nodiscard]] EventLog& audit() { return *audit_; }
  /// One sentence where the journal's end was damaged and cut off; else empty.
  [[nodiscard]] const std::string& damage() const { return journal_->damage(); }

  /// Where an earlier process was.
  struct Position {
    std::int64_t round = -1;             ///< That was combined last; 0: pre-trained; -1: nothing is done.
    std::vector<std::int64_t> prepared;  ///< Since then, as in RoundLine; the last is the one under way.
    std::string state;                   ///< Digest of the state after all of it.
    bool is_over = false;
  };
  [[nodiscard]] const Position& position() const { return position_; }
  /// Of the rounds so far.
  [[nodiscard]] const std::vector<RoundLine>& lines() const { return lines_; }
  /// The state of position(). Throws Error(data) where its file is missing or damaged.
  [[nodiscard]] learn::StateDict state() const;
  /// Of the last two rounds.
  [[nodiscard]] const std::map<std::int64_t, KeptMessage>& messages() const { return messages_; }

  /// One that turned out to be damaged.
  void forget_message(std::int64_t round) { messages_.erase(round); }

  // On the disk when they return. Each throws Error(storage).

  /// `message`: none where nobody gets one.
  void keep_prepared(std::int64_t round, const wire::PackedState& state,
                     const std::optional<wire::PackedState>& message);
  /// Fills in what the line says of the state and of prepared rounds.
  void keep_combined(RoundLine line, const wire::PackedState& state);
  void finish(const nlohmann::json& summary, const wire::PackedState& model, const wire::Metadata& metadata);
  void write_port(const std::string& file, std::uint16_t port) const;

 private:
  void resume();
  void keep_state(const wire::PackedState& state, const std::string& digest);
  [[nodiscard]] std::filesystem::path state_file(const std::string& digest) const;
  [[nodiscard]] std::filesystem::path message_file(std::int64_t round) const;

  std::filesystem::path folder_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<EventLog> audit_;
  std::unique_ptr<LineFile> rounds_;
  Position position_;
  std::vector<RoundLine> lines_;
  std::map<std::int64_t, KeptMessage> messages_;
};

}  // namespace headstart::peer
