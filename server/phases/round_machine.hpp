// One round as a state machine: who was asked, who answered, whether it counts. No sockets, no tensors.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace headstart::server {

/// What becomes of an update.
enum class Verdict {
  accepted,   ///< Folded into the sum, once.
  duplicate,  ///< This client's update was folded already.
  late,       ///< The round is over, or the client was given up.
  unknown,    ///< The client is not of this round's cohort.
};

class RoundMachine {
 public:
  enum class Phase {
    collecting,  ///< Someone asked has not answered yet.
    complete,    ///< Everyone answered or was lost, and enough updates are in.
    failed,      ///< Everyone answered or was lost, and too few updates are in.
  };

  RoundMachine(std::uint32_t round, const std::vector<std::string>& cohort, std::size_t quorum);

  /// Decides on a validated update just before it is folded; `accepted` binds the caller to fold it.
  [[nodiscard]] Verdict on_update(const std::string& client);
  /// The update was refused (not finite, wrong size, the client could not train).
  void on_rejected(const std::string& client, const std::string& reason);
  void on_lost(const std::string& client, const std::string& reason);

  [[nodiscard]] Phase phase() const;
  [[nodiscard]] std::vector<std::string> accepted() const;                                        ///< In name order.
  [[nodiscard]] const std::map<std::string, std::string>& excluded() const { return excluded_; }  ///< Client, reason.
  /// One sentence on a failed round: how many were needed and who is missing, why.
  [[nodiscard]] std::string failure() const;

 private:
  enum class State { asked, accepted, excluded };
  void exclude(const std::string& client, const std::string& reason);
  [[nodiscard]] std::size_t count(State state) const;

  std::uint32_t round_;
  std::size_t quorum_;
  std::map<std::string, State> clients_;
  std::map<std::string, std::string> excluded_;
};

}  // namespace headstart::server
