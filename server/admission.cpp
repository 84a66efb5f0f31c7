#include "server/admission.hpp"

#include <sstream>

#include <fmt/format.h>

#include "shared/base/files.hpp"
#include "shared/base/names.hpp"

namespace headstart::server {

namespace {

/// A refusal that the peer is told before the conversation ends.
class Refusal : public Error {
 public:
  explicit Refusal(const std::string& reason) : Error(Errc::rejected, reason) {}
};

template <class M>
net::Task<M> expect(session::ServerConversation& conversation) {
  const wire::ClientMessage message = co_await conversation.next_message();
  const auto* expected = std::get_if<M>(&message);
  if (expected == nullptr) throw Error(Errc::protocol, "a message out of turn in the handshake");
  co_return *expected;
}

/// Frees the name in the lobby again unless the client got in.
class LobbyEntry {
 public:
  LobbyEntry(Lobby& lobby, std::string name) : lobby_(&lobby), name_(std::move(name)) {
    if (const auto reason = lobby.enter(name_)) throw Refusal(*reason);
  }
  ~LobbyEntry() {
    if (lobby_ != nullptr) lobby_->leave(name_);
  }
  LobbyEntry(const LobbyEntry&) = delete;
  LobbyEntry& operator=(const LobbyEntry&) = delete;
  void keep() { lobby_ = nullptr; }

 private:
  Lobby* lobby_;
  std::string name_;
};

}  // namespace

Admission::Admission(net::asio::any_io_executor executor, AdmissionRules rules, Lobby& lobby, Cohort& cohort,
                     UploadSlots& slots, FederationObserver& observer)
    : executor_(std::move(executor)),
      rules_(std::move(rules)),
      lobby_(lobby),
      cohort_(cohort),
      slots_(slots),
      observer_(observer),
      changed_(executor_) {}

net::Task<> Admission::admit(std::unique_ptr<net::MessageChannel> channel) {
  auto conversation = std::make_shared<session::ServerConversation>(executor_, std::move(channel));
  const std::string peer = conversation->peer();
  const auto name = std::make_shared<std::string>(peer);
  conversation->start({.intercept =
                           [this, name](const wire::ClientMessage& message) {
                             const auto* progress = std::get_if<wire::ProgressReport>(&message);
                             if (progress != nullptr) observer_.on_progress(*name, progress->done, progress->total);
                             return progress != nullptr;
                           },
                       .on_end = [this] { changed_.notify(); }});
  std::string refusal;
  try {
    const auto hello = co_await expect<wire::Hello>(*conversation);
    if (hello.protocol != wire::protocol_version) {
      throw Refusal(
          fmt::format("protocol version {} is not spoken here, {} is; use headstart of the same version on "
                      "both sides (the client says: {})",
                      hello.protocol, wire::protocol_version, hello.software.value));
    }
    if (!is_valid_client_name(hello.name.value)) {
      throw Refusal("the client's name must be 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit");
    }
    if (const auto reason = impostor(hello.name.value, conversation->identity())) throw Refusal(*reason);
    LobbyEntry entry(lobby_, hello.name.value);
    *name = hello.name.value;
    ClientInfo info = co_await handshake(*conversation);
    info.name = hello.name.value;
    cohort_.add(std::make_shared<ClientSession>(conversation, std::move(info), rules_.terms.task.num_classes,
                                                rules_.model_bytes, slots_));
    entry.keep();
    conversation->post(wire::Joined{static_cast<std::uint32_t>(lobby_.names().size()),
                                    static_cast<std::uint32_t>(lobby_.num_expected())});
    changed_.notify();
    co_return;
  } catch (const Refusal& error) {
    refusal = error.what();
    conversation->post(wire::Refused{refusal});
  } catch (const Error& error) {
    refusal = error.what();
  }
  observer_.on_note(fmt::format("{} ({}) was not admitted: {}", *name, peer, refusal));
  co_await conversation->close("refused");
}

net::Task<ClientInfo> Admission::handshake(session::ServerConversation& conversation) {
  conversation.post(wire::Welcome{session::to_json_text(rules_.terms)});
  const auto join = co_await expect<wire::Join>(conversation);
  if (const auto reason = misfit(join)) throw Refusal(*reason);
  ClientInfo info;
  info.num_examples = static_cast<std::int64_t>(join.num_examples);
  info.num_held_out = static_cast<std::int64_t>(join.num_held_out);
  info.shares_with_peers = join.shares_with_peers;
  if (!join.own_model.value.empty()) info.own_model = session::spec_from_json_text(join.own_model.value);
  co_return info;
}

std::optional<std::string> Admission::impostor(const std::string& name, const std::string& identity) const {
  if (!identity.empty() && identity != name) {
    return fmt::format("the client calls itself {}, its certificate is that of {}", name, identity);
  }
  if (rules_.allowed_clients.empty()) return std::nullopt;
  std::istringstream lines(read_text(rules_.allowed_clients));
  for (std::string line; std::getline(lines, line);) {
    const std::size_t end = line.find_last_not_of(" \t\r");
    if (end != std::string::npos && line.substr(0, end + 1) == name) return std::nullopt;
  }
  return fmt::format("{} is not on the list of the clients that may join", name);
}

std::optional<std::string> Admission::misfit(const wire::Join& join) const {
  const learn::Task& task = rules_.terms.task;
  if (join.num_examples == 0) return "the client has no training samples";
  if (join.num_examples > (std::uint64_t{1} << 40) || join.num_held_out > (std::uint64_t{1} << 40)) {
    return "the client announces an impossible number of samples";
  }
  if (join.channels != task.channels || join.height != task.height || join.width != task.width ||
      join.num_classes != task.num_classes) {
    return fmt::format("the client brings samples of {}x{}x{} in {} classes, the run has {}x{}x{} in {} classes",
                       join.channels, join.height, join.width, join.num_classes, task.channels, task.height, task.width,
                       task.num_classes);
  }
  if (join.architecture.value != rules_.architecture) {
    return fmt::format("the client would train '{}', the run trains '{}'", join.architecture.value,
                       rules_.architecture);
  }
  if (join.schema.value != rules_.schema_digest) {
    return fmt::format("the client's '{}' has another schema than the server's; are the versions the same?",
                       join.architecture.value);
  }
  return std::nullopt;
}

net::Task<> Admission::complete() {
  while (true) {
    if (is_stopped_) throw Error(Errc::interrupted, "stopped while waiting for clients");
    cohort_.drop_lost([this](const std::string& name) { lobby_.leave(name); });
    // The lobby holds a name from the first word on; the cohort, who has finished the handshake.
    std::vector<std::string> present;
    for (const auto& client : cohort_.all()) present.push_back(client->name());
    observer_.on_lobby(present, lobby_.num_expected());
    if (present.size() == lobby_.num_expected()) break;
    co_await changed_.wait();
  }
  lobby_.close();
}

void Admission::stop() {
  is_stopped_ = true;
  changed_.notify();
}

}  // namespace headstart::server
