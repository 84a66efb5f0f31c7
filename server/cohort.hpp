// The clients of a run, and how all of them are asked at once.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/client_session.hpp"
#include "shared/base/error.hpp"
#include "shared/session/gather.hpp"

namespace headstart::server {

/// What one client answered, or why there is no answer.
template <class T>
struct Answer {
  std::shared_ptr<ClientSession> client;
  std::optional<T> value;
  std::string reason;
};

class Cohort {
 public:
  explicit Cohort(net::asio::any_io_executor executor) : executor_(std::move(executor)) {}

  /// Keeps name order, whatever the order of joining.
  void add(std::shared_ptr<ClientSession> client) {
    const auto place = std::ranges::lower_bound(clients_, client->name(), {}, [](const auto& c) { return c->name(); });
    clients_.insert(place, std::move(client));
  }

  /// Forgets those that are lost, telling each name. Before the run starts only: later the bytes that a lost client
  /// moved still count.
  template <class Tell>
  void drop_lost(Tell tell) {
    std::erase_if(clients_, [&](const auto& client) {
      if (client->is_lost()) tell(client->name());
      return client->is_lost();
    });
  }

  /// Those that are not lost, in name order.
  [[nodiscard]] std::vector<std::shared_ptr<ClientSession>> active() const {
    std::vector<std::shared_ptr<ClientSession>> present = clients_;
    std::erase_if(present, [](const auto& c) { return c->is_lost(); });
    return present;
  }
  [[nodiscard]] const std::vector<std::shared_ptr<ClientSession>>& all() const { return clients_; }
  [[nodiscard]] std::shared_ptr<ClientSession> find(const std::string& name) const {
    const auto found = std::ranges::find(clients_, name, [](const auto& c) { return c->name(); });
    return found == clients_.end() ? nullptr : *found;
  }

  [[nodiscard]] std::uint64_t bytes_up() const {
    return sum([](const ClientSession& c) { return c.bytes_up(); });
  }
  [[nodiscard]] std::uint64_t bytes_down() const {
    return sum([](const ClientSession& c) { return c.bytes_down(); });
  }

  /// Asks all of `clients` at the same time: `ask(ClientSession&)` returns Task<T>. One client's failure is its own:
  /// its answer then has a reason and no value. Answers stand in the order of `clients`.
  template <class T, class Ask>
  net::Task<std::vector<Answer<T>>> ask(std::vector<std::shared_ptr<ClientSession>> clients, Ask ask_one) {
    std::vector<Answer<T>> answers(clients.size());
    std::vector<net::Task<>> tasks;
    for (std::size_t i = 0; i < clients.size(); ++i) {
      answers[i].client = clients[i];
      tasks.push_back(take_answer<T>(answers[i], ask_one));
    }
    co_await session::gather(executor_, std::move(tasks));
    co_return answers;
  }

  void abort_all() noexcept {
    for (const auto& client : clients_) client->abort();
  }

 private:
  template <class T, class Ask>
  static net::Task<> take_answer(Answer<T>& answer, Ask& ask_one) {
    try {
      net::Task<T> asking = ask_one(*answer.client);
      answer.value = co_await std::move(asking);
    } catch (const Error& error) {
      answer.reason = error.what();
    }
  }

  template <class Count>
  [[nodiscard]] std::uint64_t sum(Count count) const {
    std::uint64_t total = 0;
    for (const auto& client : clients_) total += count(*client);
    return total;
  }

  net::asio::any_io_executor executor_;
  std::vector<std::shared_ptr<ClientSession>> clients_;
};

}  // namespace headstart::server
