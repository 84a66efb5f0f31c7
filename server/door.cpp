#include "server/door.hpp"

#include <algorithm>
#include <optional>

#include <boost/asio/co_spawn.hpp>
#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/base/log.hpp"

namespace headstart::server {

namespace {

/// One guest's place, as long as it lives.
class Place {
 public:
  Place(std::shared_ptr<DoorRecord> record, DoorCount::Guest guest) : record_(std::move(record)), guest_(guest) {}
  ~Place() { record_->count.leave(guest_); }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  void advance(DoorCount::Progress progress) { record_->count.advance(guest_, progress); }
  void recognise(const std::string& name) { record_->count.recognise(guest_, name); }
  [[nodiscard]] DoorRecord& record() { return *record_; }

 private:
  std::shared_ptr<DoorRecord> record_;
  DoorCount::Guest guest_;
};

/// Those who are not through yet would keep a server that ends for as long as they may take.
class DoorShut {
 public:
  explicit DoorShut(DoorRecord& record) : record_(record) {}
  ~DoorShut() { record_.count.put_out_before(DoorCount::Progress::upgraded, "the server takes no more connections"); }
  DoorShut(const DoorShut&) = delete;
  DoorShut& operator=(const DoorShut&) = delete;

 private:
  DoorRecord& record_;
};

net::Task<> serve(net::PendingPeer pending, net::WebSocketOptions options, Federation& federation,
                  std::shared_ptr<Place> place /*held until it has joined or gone*/) {
  const std::string peer = pending.peer();
  std::unique_ptr<net::MessageChannel> channel;
  try {
    const net::HandshakeSteps steps{.on_first_bytes = [place] { place->advance(DoorCount::Progress::speaking); },
                                    .on_certificate = [place](const std::string& name) { place->recognise(name); }};
    auto shaking = net::handshake(std::move(pending), options, steps);
    channel = co_await std::move(shaking);
  } catch (const Error& error) {
    if (!place->record().failures.count(net::address_of(peer))) co_return;
    spdlog::warn("{}", error.what());
    federation.audit().handshake_failed(peer, error.what());
    co_return;
  }
  place->advance(DoorCount::Progress::upgraded);
  // The place is left when admission is through; who keeps the function must not keep it.
  const auto on_seated = [weak = std::weak_ptr(place)] {
    if (const auto still = weak.lock()) still->advance(DoorCount::Progress::seated);
  };
  auto admitting = federation.admit(std::move(channel), on_seated);
  co_await std::move(admitting);
}

}  // namespace

std::variant<std::optional<Places::Displaced>, std::string> Places::make_room(const std::string& owner,
                                                                              const std::string& owner_words) const {
  const auto own = by_owner_.find(owner);
  const std::size_t num_own = own == by_owner_.end() ? 0 : own->second.size();
  if (num_own >= share_) {
    const auto candidate = first_to_go(own->second);
    if (!candidate) {
      return fmt::format("the server's door is full: {} connections {} are joining, its share of limits.handshakes",
                         num_own, owner_words);
    }
    return Displaced{std::get<3>(*candidate),
                     fmt::format("its place was given to a newer connection {}, which holds {}, its share of "
                                 "limits.handshakes",
                                 owner_words, num_own)};
  }
  if (size() < limit_) return std::optional<Displaced>();
  std::size_t most = 0;
  std::optional<Candidate> candidate;
  for (const auto& [other, guests] : by_owner_) {
    const auto first = first_to_go(guests);
    if (!first || guests.size() < num_own + 1 || guests.size() < most) continue;
    if (candidate && guests.size() == most && *first > *candidate) continue;
    most = guests.size();
    candidate = first;
  }
  if (!candidate) {
    return fmt::format("the server's door is full: {} connections are in their handshakes (limits.handshakes)", size());
  }
  return Displaced{
      std::get<3>(*candidate),
      fmt::format("its place was given to a newer connection, as all {} are taken (limits.handshakes)", limit_)};
}

std::optional<Places::Candidate> Places::first_to_go(const Guests& guests) const {
  const TimePoint now = clock_();
  std::optional<Candidate> first;
  for (const auto& [guest, entry] : guests) {
    if (entry.progress == Progress::seated) continue;
    const bool is_moving = now < entry.at + stall;
    const Candidate candidate(is_moving, is_moving ? entry.progress : Progress::silent, entry.order, guest);
    if (!first || candidate < *first) first = candidate;
  }
  return first;
}

void Places::add(const std::string& owner, Guest guest, Progress progress, PutOut end) {
  by_owner_[owner].emplace(guest, Entry{progress, clock_(), next_order_++, std::move(end)});
  owner_of_.emplace(guest, owner);
}

void Places::advance(Guest guest, Progress progress) {
  const auto owner = owner_of_.find(guest);
  if (owner == owner_of_.end()) return;
  Entry& entry = by_owner_.at(owner->second).at(guest);
  entry.progress = progress;
  entry.at = clock_();
  entry.order = next_order_++;
}

Places::PutOut Places::remove(Guest guest) {
  const auto owner = owner_of_.find(guest);
  if (owner == owner_of_.end()) return {};  // it was put out
  const auto guests = by_owner_.find(owner->second);
  PutOut end = std::move(guests->second.at(guest).end);
  guests->second.erase(guest);
  if (guests->second.empty()) by_owner_.erase(guests);
  owner_of_.erase(owner);
  return end;
}

std::vector<Places::Guest> Places::all_before(Progress progress) const {
  std::vector<Guest> found;
  for (const auto& [owner, guests] : by_owner_) {
    for (const auto& [guest, entry] : guests) {
      if (entry.progress < progress) found.push_back(guest);
    }
  }
  return found;
}

std::variant<DoorCount::Guest, std::string> DoorCount::enter(const std::string& address, PutOut end) {
  const auto room = strangers_.make_room(address, "from " + address);
  if (const auto* full = std::get_if<std::string>(&room)) return *full;
  if (const auto& displaced = std::get<std::optional<Places::Displaced>>(room)) {
    put_out(strangers_, displaced->guest, displaced->reason);
  }
  const Guest guest = next_++;
  strangers_.add(address, guest, Progress::silent, std::move(end));
  return guest;
}

void DoorCount::recognise(Guest guest, const std::string& name) {
  PutOut end = strangers_.remove(guest);
  if (!end) return;
  const auto room = known_.make_room(name, fmt::format("certified as '{}'", name));
  if (const auto* full = std::get_if<std::string>(&room)) return end(*full);
  if (const auto& displaced = std::get<std::optional<Places::Displaced>>(room)) {
    put_out(known_, displaced->guest, displaced->reason);
  }
  known_.add(name, guest, Progress::speaking, std::move(end));
}

void DoorCount::advance(Guest guest, Progress progress) {
  strangers_.advance(guest, progress);
  known_.advance(guest, progress);
}

void DoorCount::leave(Guest guest) {
  strangers_.remove(guest);
  known_.remove(guest);
}

void DoorCount::put_out(Places& places, Guest guest, const std::string& reason) {
  // It does not count any more when it is told: what it does then may come back here.
  if (const PutOut end = places.remove(guest)) end(reason);
}

void DoorCount::put_out_before(Progress progress, const std::string& reason) {
  for (Places* places : {&strangers_, &known_}) {
    for (const Guest guest : places->all_before(progress)) put_out(*places, guest, reason);
  }
}

net::Task<> keep_door(net::asio::any_io_executor executor, net::Listener& listener, net::WebSocketOptions options,
                      std::shared_ptr<DoorRecord> record, Federation& federation) {
  const bool speaks_tls = options.tls != nullptr;
  const DoorShut shut_at_end(*record);
  while (true) {
    auto accepting = listener.accept();
    net::PendingPeer pending = co_await std::move(accepting);
    const std::string peer = pending.peer();
    const auto end = pending.ender(speaks_tls);
    const auto entered = record->count.enter(net::address_of(peer), end);
    if (const auto* reason = std::get_if<std::string>(&entered)) {
      end(*reason);
      if (Told& told = record->refusals; told.count()) {
        spdlog::warn("{}: refused, {}{}", peer, *reason,
                     told.is_thinned_out() ? fmt::format("; {} so far", told.so_far()) : "");
      }
      continue;
    }
    auto place = std::make_shared<Place>(record, std::get<DoorCount::Guest>(entered));
    auto serving = serve(std::move(pending), options, federation, std::move(place));
    net::asio::co_spawn(executor, std::move(serving), [](const std::exception_ptr& failure) {
      if (failure) std::rethrow_exception(failure);
    });
  }
}

}  // namespace headstart::server
