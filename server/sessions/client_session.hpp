// The server's view of one client: each task as one call that sends it and returns the validated answer.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "server/operations/audit_log.hpp"
#include "server/sessions/client_info.hpp"
#include "server/sessions/patience.hpp"
#include "server/sessions/released_model.hpp"
#include "server/uploads/upload_slots.hpp"
#include "shared/base/clock.hpp"
#include "shared/learn/train/evaluation.hpp"
#include "shared/learn/tune/setting_search.hpp"
#include "shared/plan/terms.hpp"
#include "shared/session/conversation.hpp"

namespace headstart::server {

/// A state and its digest: a client that holds the global model is not sent it again, and the audit log names what was
/// sent.
struct DigestedState {
  std::string digest;
  wire::PackedState state;
};

/// Tells a client that the run is over and resumes when it has hung up, which it does when it knows. Throws what ended
/// the connection otherwise: the client may not know. A client that does not hang up within `limit`, or 10 s where that
/// is less, breaks the protocol.
net::Task<> say_goodbye(std::shared_ptr<session::ServerConversation> conversation, wire::Finished words,
                        std::chrono::milliseconds limit);

/// One client of the run, over one connection after another. One task at a time; all calls on the conversation's
/// executor. Every call throws Error(run_failed) when the client says that it failed or its time is over (it stays
/// usable), and what ended the connection when it is lost. An answer that breaks the protocol ends the connection.
class ClientSession {
 public:
  ClientSession(std::shared_ptr<session::ServerConversation> conversation, ClientInfo info, std::int64_t num_classes,
                std::uint64_t model_bytes, UploadSlots& slots, AuditLog& audit, Patience patience, Clock clock);

  [[nodiscard]] const ClientInfo& info() const { return info_; }
  [[nodiscard]] const std::string& name() const { return info_.name; }
  [[nodiscard]] bool is_lost() const { return conversation_->has_ended(); }
  [[nodiscard]] std::uint64_t bytes_up() const { return earlier_bytes_up_ + conversation_->bytes_received(); }
  [[nodiscard]] std::uint64_t bytes_down() const { return earlier_bytes_down_ + conversation_->bytes_sent(); }

  /// A new connection of the same client takes the place of one that was lost. `held_model`: what its Join says.
  void return_with(std::shared_ptr<session::ServerConversation> conversation, std::string held_model);
  /// To be called when a connection of this client has ended. Counts a violation, where that ended it.
  void on_lost();
  /// Connections so far: when it has changed, the one before was lost.
  [[nodiscard]] int num_connections() const { return num_connections_; }
  /// It is lost, and its return is still waited for.
  [[nodiscard]] bool is_awaited() const;
  /// Resumes when the client is there, or is not awaited any more, or `end` has come.
  net::Task<> return_by(TimePoint end);
  /// Its return is not waited for any more.
  void give_up();
  /// A client that breaks the protocol again and again does so on purpose or for ever.
  static constexpr int max_violations = 3;
  /// Violations against the protocol so far, on all its connections.
  [[nodiscard]] int num_violations() const { return num_violations_; }
  [[nodiscard]] bool has_violated_too_often() const;
  /// Of an earlier session of this client.
  void add_violations(int earlier) { num_violations_ += earlier; }

  /// When the phase under way is over for this client.
  void set_phase_end(TimePoint end) { phase_end_ = end; }

  net::Task<Pretraining> pretrain();
  /// The pre-trained model's bytes: `num_bytes`, of the schema of the client's own architecture.
  net::Task<Upload> exchange(std::uint64_t num_bytes);
  /// `place`: where the update is to lie.
  net::Task<Upload> train(std::uint32_t round, const DigestedState& model,
                          UploadSlots::Place place = UploadSlots::Place::memory);
  net::Task<learn::Evaluation> evaluate(const DigestedState& model);
  net::Task<learn::Evaluation> evaluate_candidate(ReleasedModel candidate);
  /// Logits of the pre-trained model: float32 [samples, classes].
  net::Task<Upload> logits(const DigestedState& samples);
  /// Consolidation on the client's own data. What was sent for the call before on this connection is not sent again.
  net::Task<Upload> distill(const DigestedState& student, const wire::PackedState& weights,
                            std::vector<ReleasedModel> teachers, const learn::KdSetting& setting);
  net::Task<Upload> reestimate_statistics(const DigestedState& model);

  /// Tells the client that its last result does not count, and counts that under `kind`.
  void refuse_result(const std::string& kind, const std::string& reason);
  /// What was counted before the server was started again.
  void add_refusals(const RefusalCounts& earlier) {
    for (const auto& [kind, count] : earlier) refusals_[kind] += count;
  }
  [[nodiscard]] const RefusalCounts& refusals() const { return refusals_; }
  /// See say_goodbye().
  net::Task<> finish(wire::Finished words);
  void abort() { conversation_->abort(); }
  /// See MessageChannel, of the connection that there is.
  net::Task<bool> answers(std::chrono::milliseconds limit) { return conversation_->answers(limit); }
  /// Says something to those who run the client.
  void tell(const std::string& words) { conversation_->post(wire::Notice{words}); }
  [[nodiscard]] std::string peer() const { return conversation_->peer(); }
  /// Why the last connection ended; empty while it stands.
  [[nodiscard]] std::string ending() const { return conversation_->ending(); }

 private:
  using Conversation = std::shared_ptr<session::ServerConversation>;
  class Watch;

  [[nodiscard]] bool must_send(const DigestedState& model) const { return held_model_ != model.digest; }
  template <class Answer>
  net::Task<Answer> answer(Conversation conversation);
  net::Task<Upload> result(Conversation conversation, std::uint64_t num_bytes,
                           UploadSlots::Place place = UploadSlots::Place::memory);
  net::Task<learn::Evaluation> evaluation(Conversation conversation);
  /// Attaches a state that a message has announced.
  void send(const Conversation& conversation, const std::string& what, const DigestedState& state);
  void send(const Conversation& conversation, const ReleasedModel& model);
  [[noreturn]] void break_off(const Conversation& conversation, const std::string& what);

  Conversation conversation_;
  ClientInfo info_;
  std::int64_t num_classes_;
  std::uint64_t model_bytes_;
  UploadSlots& slots_;
  AuditLog& audit_;
  Patience patience_;
  Clock clock_;
  net::Signal returned_;
  wire::TaskId task_ = 0;
  std::optional<std::string> held_model_;  ///< Digest of the global model that the client has.
  std::string held_consolidation_;         ///< Names the student, weights and teachers that it has; empty: none.
  std::optional<TimePoint> lost_at_;
  TimePoint phase_end_ = TimePoint::max();
  std::uint64_t earlier_bytes_up_ = 0, earlier_bytes_down_ = 0;  ///< Of the connections before this one.
  int num_connections_ = 1;
  int num_violations_ = 0;
  RefusalCounts refusals_;
};

}  // namespace headstart::server
