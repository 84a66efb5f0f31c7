// The server's view of one client: one connection after another, one task after another.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/operations/audit_log.hpp"
#include "server/operations/run_status.hpp"
#include "server/sessions/client_info.hpp"
#include "server/sessions/patience.hpp"
#include "server/sessions/released_state.hpp"
#include "server/uploads/upload_slots.hpp"
#include "shared/base/clock.hpp"
#include "shared/base/error.hpp"
#include "shared/session/conversation.hpp"

namespace headstart::server {

/// A task for one client: see plan/tasks.hpp.
struct TaskOrder {
  struct Input {
    std::string name;
    ReleasedState state;
  };
  std::string_view kind;
  std::string settings = {};       ///< JSON; empty: none.
  std::vector<Input> inputs = {};  ///< Those that the client holds are not sent.
  bool keeps_inputs = false;       ///< The client holds them until another task says so.
  std::uint64_t result_bytes = 0;  ///< Of the state that it returns; 0: it returns figures alone.
  UploadSlots::Place place = UploadSlots::Place::memory;  ///< Where that state is to lie.

  void add(std::string_view name, ReleasedState state) { inputs.push_back({std::string(name), std::move(state)}); }
};

/// What a client returned.
struct Outcome {
  std::string figures;          ///< JSON, to be read with ClientSession::read().
  std::optional<Upload> state;  ///< Where the order has result_bytes.
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

  /// A new connection of the same client takes the place of one that was lost.
  void return_with(std::shared_ptr<session::ServerConversation> conversation);
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

  /// What each task brings from now on, but for those of kind `describe`: see plan::input::normalisation.
  void normalise_by(ReleasedState normalisation) { normalisation_ = std::move(normalisation); }

  /// Sends a task and what the client lacks of its inputs, and returns what it answers. A state comes when there is a
  /// slot for it.
  net::Task<Outcome> perform(TaskOrder order);
  /// What `parse` makes of the figures. Where it throws Error(protocol), the client broke the protocol.
  template <class Parse>
  auto read(const Outcome& outcome, Parse parse) {
    try {
      return parse(outcome.figures);
    } catch (const Error& error) {
      break_off(conversation_, error.what());
    }
  }
  [[nodiscard]] std::int64_t num_classes() const { return num_classes_; }
  /// Of a state of the federated model.
  [[nodiscard]] std::uint64_t model_bytes() const { return model_bytes_; }

  /// Tells the client that its last result does not count, and counts that under `kind`.
  void refuse_result(const std::string& kind, const std::string& reason);
  /// What was counted before the server was started again.
  void add_refusals(const RefusalCounts& earlier) {
    for (const auto& [kind, count] : earlier) refusals_[kind] += count;
  }
  [[nodiscard]] const RefusalCounts& refusals() const { return refusals_; }
  /// The task under way.
  [[nodiscard]] std::optional<TaskStatus> task() const;
  [[nodiscard]] const std::map<std::string, TaskTimes>& task_times() const { return task_times_; }
  /// Whether a phase waits for an answer of this client, its return included.
  [[nodiscard]] bool is_asked() const { return num_askers_ > 0; }
  /// While it lives, a phase waits for the client.
  class Asking {
   public:
    explicit Asking(ClientSession& session) : session_(session) { ++session_.num_askers_; }
    ~Asking() { --session_.num_askers_; }
    Asking(const Asking&) = delete;
    Asking& operator=(const Asking&) = delete;

   private:
    ClientSession& session_;
  };
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
  class TaskTimer;

  void post(const Conversation& conversation, const TaskOrder& order);
  /// The figures of the task under way. Sends the inputs that the client fetches before.
  net::Task<std::string> answer(Conversation conversation, const TaskOrder& order);
  void send(const Conversation& conversation, const TaskOrder& order, const std::vector<std::uint16_t>& inputs);
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
  std::optional<TimePoint> lost_at_;
  TimePoint phase_end_ = TimePoint::max();
  std::uint64_t earlier_bytes_up_ = 0, earlier_bytes_down_ = 0;  ///< Of the connections before this one.
  int num_connections_ = 1;
  int num_violations_ = 0;
  RefusalCounts refusals_;
  std::optional<ReleasedState> normalisation_;
  std::string task_kind_;  ///< Of the task under way; empty: none.
  TimePoint task_began_{};
  std::map<std::string, TaskTimes> task_times_;
  int num_askers_ = 0;
};

}  // namespace headstart::server
