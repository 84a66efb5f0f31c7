// The server's view of one client: each task as one call that sends it and returns the validated answer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "server/upload_slots.hpp"
#include "shared/learn/metrics.hpp"
#include "shared/session/conversation.hpp"
#include "shared/session/terms.hpp"

namespace headstart::server {

/// What a client brought when it joined; binds for the run.
struct ClientInfo {
  std::string name;
  std::int64_t num_examples = 0;
  std::int64_t num_held_out = 0;
  std::optional<learn::ModelSpec> own_model;  ///< Where it pre-trains another architecture.
  bool shares_with_peers = false;             ///< Its pre-trained model may go to other clients.
};

/// The global model with its version: rounds count versions, so a client that holds one is not sent it again.
struct GlobalModel {
  std::uint64_t version = 0;
  wire::PackedState state;
};

/// A teacher on its way to a student's client.
struct TeacherSource {
  std::string client;
  learn::ModelSpec spec;
  std::shared_ptr<session::ByteSource> state;
};

/// One joined client. One task at a time; all calls on the conversation's executor. Every call throws
/// Error(run_failed) when the client says that it failed (it stays usable), and what ended the connection when it is
/// lost (is_lost() is then true). An answer that breaks the protocol ends the connection.
class ClientSession {
 public:
  using ProgressHook = std::function<void(const std::string& client, std::uint64_t done, std::uint64_t total)>;

  ClientSession(std::shared_ptr<session::ServerConversation> conversation, ClientInfo info, std::int64_t num_classes,
                std::uint64_t model_bytes, UploadSlots& slots);

  [[nodiscard]] const ClientInfo& info() const { return info_; }
  [[nodiscard]] const std::string& name() const { return info_.name; }
  [[nodiscard]] bool is_lost() const { return conversation_->has_ended(); }
  [[nodiscard]] std::uint64_t bytes_up() const { return conversation_->bytes_received(); }
  [[nodiscard]] std::uint64_t bytes_down() const { return conversation_->bytes_sent(); }

  net::Task<wire::PretrainDone> pretrain();
  /// The pre-trained model's bytes: `num_bytes`, of the schema of the client's own architecture.
  net::Task<Upload> exchange(std::uint64_t num_bytes);
  net::Task<Upload> train(std::uint32_t round, const GlobalModel& model);
  net::Task<learn::Evaluation> evaluate(const GlobalModel& model);
  net::Task<learn::Evaluation> evaluate_candidate(const learn::ModelSpec& spec,
                                                  std::shared_ptr<session::ByteSource> state);
  /// Logits of the pre-trained model: float32 [samples, classes].
  net::Task<Upload> logits(const wire::PackedState& samples);
  net::Task<Upload> distill(const wire::PackedState& student, const wire::PackedState& weights,
                            const std::vector<TeacherSource>& teachers);
  net::Task<Upload> reestimate_statistics(const wire::PackedState& model);

  /// Tells the client that its last result does not count.
  void refuse_result(const std::string& reason);
  net::Task<> finish(std::string summary);
  void abort() noexcept { conversation_->abort(); }

 private:
  [[nodiscard]] bool must_send(const GlobalModel& model) const { return held_version_ != model.version; }
  template <class Answer>
  net::Task<Answer> answer();
  net::Task<Upload> result(std::uint64_t num_bytes);
  net::Task<learn::Evaluation> evaluation();
  [[noreturn]] void break_off(const std::string& what);

  std::shared_ptr<session::ServerConversation> conversation_;
  ClientInfo info_;
  std::int64_t num_classes_;
  std::uint64_t model_bytes_;
  UploadSlots& slots_;
  wire::TaskId task_ = 0;
  std::optional<std::uint64_t> held_version_;
};

}  // namespace headstart::server
