// The clients of a run, and how all of them are asked at once.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "server/sessions/client_session.hpp"
#include "shared/base/error.hpp"
#include "shared/base/printable.hpp"
#include "shared/net/gather.hpp"

namespace headstart::server {

/// What one client answered, or why there is no answer.
template <class T>
struct Answer {
  std::shared_ptr<ClientSession> client;
  std::optional<T> value;
  std::string reason;
};

class Roster {
 public:
  Roster(net::asio::any_io_executor executor, Patience patience, Clock clock)
      : executor_(std::move(executor)), patience_(patience), clock_(std::move(clock)) {}

  /// A client of the run that a server which was started again goes on with.
  void expect(const std::string& name) { expected_.insert(name); }
  /// Those of them that are not back.
  [[nodiscard]] std::set<std::string> missing() const {
    std::set<std::string> missing = expected_;
    for (const auto& client : clients_) missing.erase(client->name());
    return missing;
  }

  /// Keeps name order, whatever the order of joining.
  void add(std::shared_ptr<ClientSession> client) {
    if (normalisation_) client->normalise_by(*normalisation_);
    const auto place = std::ranges::lower_bound(clients_, client->name(), {}, [](const auto& c) { return c->name(); });
    clients_.insert(place, std::move(client));
  }

  /// Forgets those that are lost, telling of each. Before the run starts only: later the bytes that a lost client
  /// moved still count.
  template <class Tell>
  void drop_lost(Tell tell) {
    std::erase_if(clients_, [&](const auto& client) {
      if (client->is_lost()) tell(*client);
      return client->is_lost();
    });
  }

  /// For all clients, those that are still to come among them: see ClientSession.
  void normalise_by(const ReleasedState& normalisation) {
    normalisation_ = normalisation;
    for (const auto& client : clients_) client->normalise_by(normalisation);
  }

  /// Those that are there or whose return is awaited, in name order.
  [[nodiscard]] std::vector<std::shared_ptr<ClientSession>> active() const {
    std::vector<std::shared_ptr<ClientSession>> active = clients_;
    std::erase_if(active, [](const auto& c) { return c->is_lost() && !c->is_awaited(); });
    return active;
  }
  [[nodiscard]] const std::vector<std::shared_ptr<ClientSession>>& all() const { return clients_; }
  /// The run's other clients: away, and not waited for.
  [[nodiscard]] std::set<std::string> gone() const {
    std::set<std::string> gone = missing();
    for (const auto& client : clients_) {
      if (client->is_lost() && !client->is_awaited()) gone.insert(client->name());
    }
    return gone;
  }
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

  /// Asks all of `clients` at the same time: `ask(ClientSession&)` returns Task<T>. A client whose connection is lost
  /// is asked again when it returns, while it is awaited. One client's failure is its own: its answer then has a reason
  /// and no value, at the latest when the phase is over. Answers stand in the order of `clients`. Error(storage), the
  /// server's own disk and no client's fault, is thrown without waiting for the others: their connections end.
  template <class T, class Ask>
  net::Task<std::vector<Answer<T>>> ask(std::vector<std::shared_ptr<ClientSession>> clients, Ask ask_one) {
    std::vector<Answer<T>> answers(clients.size());
    std::vector<net::Task<>> tasks;
    const TimePoint end = clock_() + patience_.phase;
    bool is_over = false;
    for (std::size_t i = 0; i < clients.size(); ++i) {
      answers[i].client = clients[i];
      tasks.push_back(take_answer<T>(answers, i, ask_one, end, is_over));
    }
    co_await net::gather(executor_, std::move(tasks));
    co_return answers;
  }

  /// Ends all connections and waits for nobody.
  void abort_all() {
    for (const auto& client : clients_) {
      client->abort();
      client->give_up();
    }
  }

 private:
  template <class T, class Ask>
  net::Task<> take_answer(std::vector<Answer<T>>& answers, std::size_t index, Ask& ask_one, TimePoint end,
                          bool& is_over) {
    Answer<T>& answer = answers[index];
    ClientSession& client = *answer.client;
    const ClientSession::Asking asking_it(client);
    client.set_phase_end(end);
    answer.reason = "its connection is lost";
    while (true) {
      co_await client.return_by(end);
      if (client.is_lost() || is_over) co_return;
      const int connection = client.num_connections();
      try {
        net::Task<T> asking = ask_one(client);
        answer.value = co_await std::move(asking);
        co_return;
      } catch (const Error& error) {
        if (error.code() == Errc::storage) {
          is_over = true;
          for (const Answer<T>& other : answers) {
            if (!other.value && &other != &answer) other.client->abort();
          }
          throw;
        }
        answer.reason = printable(error.what(), wire::max_reason_bytes);
      } catch (const std::exception& error) {
        // What this client sent was more than a library could bear.
        answer.reason = printable(error.what(), wire::max_reason_bytes);
      }
      const bool was_lost = client.is_lost() || client.num_connections() != connection;
      if (!was_lost || is_over || clock_() >= end) co_return;
    }
  }

  template <class Count>
  [[nodiscard]] std::uint64_t sum(Count count) const {
    std::uint64_t total = 0;
    for (const auto& client : clients_) total += count(*client);
    return total;
  }

  net::asio::any_io_executor executor_;
  Patience patience_;
  Clock clock_;
  std::vector<std::shared_ptr<ClientSession>> clients_;
  std::set<std::string> expected_;
  std::optional<ReleasedState> normalisation_;
};

}  // namespace headstart::server
