#include "server/admission/admission_machine.hpp"

#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "shared/base/error.hpp"
#include "shared/base/names.hpp"
#include "shared/base/printable.hpp"

namespace headstart::server {

namespace {

/// What a client brings must be what it brought: the run was weighed and planned with it.
std::optional<Refusal> change(const ClientInfo& before, const ClientInfo& now) {
  const auto words = [](const ClientInfo& info) {
    return fmt::format("{} training and {} held-out samples, own architecture {}, share_model: {}", info.num_examples,
                       info.num_held_out, quotation(info.own_architecture, max_quoted_bytes, '\''), share_word(info));
  };
  if (words(before) == words(now)) return std::nullopt;
  return Refusal{RefusalCode::changed, fmt::format("{} is in this run with {}; it returns with {}. Start it with the "
                                                   "data and settings it joined with",
                                                   before.name, words(before), words(now))};
}

}  // namespace

AdmissionMachine::AdmissionMachine(AdmissionCriteria criteria, Lobby& lobby)
    : criteria_(std::move(criteria)), lobby_(lobby), num_newcomers_(criteria_.num_newcomers) {}

void AdmissionMachine::stop() {
  is_stopped_ = true;
  close();
}

std::optional<Refusal> AdmissionMachine::greet(const Greeting& greeting, const std::string& identity, bool is_member,
                                               const Listed& is_listed) const {
  const std::string& name = greeting.name;
  if (!greeting.version) {
    return Refusal{
        RefusalCode::version,
        fmt::format("this client speaks protocol {}, the server {}; use headstart of the same version on both sides{}",
                    greeting.its_versions, greeting.our_versions,
                    greeting.software.empty() ? std::string()
                                              : fmt::format(" (the client says: {})", quotation(greeting.software)))};
  }
  if (!is_valid_client_name(name)) {
    return Refusal{RefusalCode::name,
                   "the client's name must be 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"};
  }
  if (!identity.empty() && identity != name) {
    return Refusal{RefusalCode::certificate,
                   fmt::format("the client calls itself {}, its certificate is that of {}", name, identity)};
  }
  if (!is_listed(name)) {
    return Refusal{RefusalCode::not_listed, fmt::format("{} is not on the list of the clients that may join", name)};
  }
  if (!greeting.unknown_tasks.empty()) {
    return Refusal{RefusalCode::unknown_tasks, fmt::format("the run has tasks that this client does not know: {}; use "
                                                           "a version of headstart that does, or a worker that offers "
                                                           "them",
                                                           fmt::join(greeting.unknown_tasks, ", "))};
  }
  if (is_stopped_) return Refusal{RefusalCode::stopping, "the server is being stopped", true};
  const bool is_of_the_run = lobby_.is_closed() && (is_member || is_on_roster(name));
  if (stage_ == Stage::closed || (stage_ == Stage::farewell && !is_of_the_run)) {
    return Refusal{RefusalCode::over, "the run is over"};
  }
  return std::nullopt;
}

std::variant<std::chrono::milliseconds, Refusal> AdmissionMachine::claim(const std::string& name,
                                                                         const NameHolders& holders, TimePoint now) {
  if (holders.alive_at) {
    return Refusal{RefusalCode::name_taken,
                   fmt::format("a client named '{}' is in this run already; give each client a name of its own. That "
                               "one, at {}, is alive; is this client running twice?",
                               name, *holders.alive_at),
                   true};
  }
  if (holders.is_joining) {
    return Refusal{RefusalCode::name_joining, fmt::format("another connection is just joining as '{}'", name), true};
  }
  return pace_.wait(name, now);
}

std::variant<Place, Refusal> AdmissionMachine::place(const std::string& name, const Member* member) {
  if (member != nullptr && lobby_.is_closed()) {
    if (auto refusal = bad_conduct(name, member->num_violations)) return *std::move(refusal);
    return Place::readmit;
  }
  if (stage_ == Stage::farewell) return Place::farewell;
  const bool is_of_the_run = is_on_roster(name);
  if (!criteria_.roster.empty() && !is_of_the_run && !is_open_for_late_) {
    return Refusal{RefusalCode::not_of_the_run,
                   fmt::format("the run goes on with the {} clients that it began with", criteria_.roster.size()),
                   criteria_.num_late > 0};
  }
  if (!lobby_.is_closed()) {
    if (auto refusal = lobby_.enter(name)) return *std::move(refusal);
    return Place::lobby;
  }
  if (is_of_the_run) return Place::rejoined;
  if (num_newcomers_ >= criteria_.num_late) {
    return Refusal{RefusalCode::started, "the run has started; clients join before that"};
  }
  if (!is_open_for_late_) {
    return Refusal{RefusalCode::too_early, "the run has started; new clients can join when its rounds begin", true};
  }
  return Place::newcomer;
}

std::variant<Accepted, Refusal> AdmissionMachine::join(Place place, const Joining& joining, const Member* member,
                                                       const std::vector<std::string>& present) {
  if (auto refusal = misfit(joining)) return *std::move(refusal);
  if (place == Place::farewell) return Accepted{};
  if (place != Place::readmit) return join_anew(place, joining, present);
  if (auto refusal = change(member->info, joining.info)) return *std::move(refusal);
  return compare_with_before(joining, present);
}

std::variant<Accepted, Refusal> AdmissionMachine::join_anew(Place place, const Joining& joining,
                                                            const std::vector<std::string>& present) {
  const std::string& name = joining.info.name;
  const auto earlier = violations_.find(name);
  const int num_violations = earlier == violations_.end() ? 0 : earlier->second;
  if (auto refusal = bad_conduct(name, num_violations)) return *std::move(refusal);
  const auto on_roster = criteria_.roster.find(name);
  const bool is_of_the_run = on_roster != criteria_.roster.end();
  std::variant<Accepted, Refusal> ruling = compare(joining, present, is_of_the_run);
  if (std::holds_alternative<Refusal>(ruling)) return ruling;
  if (is_of_the_run) {
    if (auto refusal = change(on_roster->second, joining.info)) return *std::move(refusal);
  }
  if (place == Place::lobby && lobby_.is_closed() && !is_of_the_run) {
    return Refusal{RefusalCode::started, "the run has started without this client", true};
  }
  if (place == Place::newcomer && num_newcomers_ >= criteria_.num_late) {
    return Refusal{RefusalCode::started, "the run has started, and no place is left"};
  }
  std::get<Accepted>(ruling).num_violations = num_violations;
  return ruling;
}

void AdmissionMachine::forget(const std::string& name, int num_violations) {
  lobby_.leave(name);
  figures_.erase(name);
  if (num_violations > 0) violations_[name] = num_violations;
}

std::optional<Refusal> AdmissionMachine::misfit(const Joining& joining) const {
  if (const auto& own = joining.info.own_model) {
    try {
      // A script is never built here, and a peer must not name files of this machine.
      std::optional<std::string> excess;
      if (!own->is_scripted()) excess = plan::beyond_own_model_limit(*own, criteria_.terms, criteria_.model_bytes);
      if (excess) return Refusal{RefusalCode::own_model, fmt::format("the client's own model {}", *excess)};
    } catch (const Error& error) {
      return Refusal{RefusalCode::own_model, fmt::format("the client's own model: {}", error.what())};
    }
  }
  if (joining.misfit) return Refusal{RefusalCode::misfit, *joining.misfit};
  if (joining.schema == criteria_.schema_digest) return std::nullopt;
  return Refusal{RefusalCode::schema,
                 fmt::format("the client's '{}' has another schema than the server's; are the versions the same?",
                             joining.architecture)};
}

std::optional<Refusal> AdmissionMachine::bad_conduct(const std::string& name, int num_violations) const {
  if (num_violations < criteria_.max_violations) return std::nullopt;
  return Refusal{RefusalCode::conduct, fmt::format("{} has broken the protocol {} times", name, num_violations)};
}

std::optional<learn::Reference> AdmissionMachine::reference_for(const std::string& client,
                                                                const std::vector<std::string>& present) const {
  if (criteria_.figures) return learn::Reference{"the server", *criteria_.figures};
  std::vector<std::string> names;
  std::vector<learn::SampleFigures> figures;
  for (const std::string& other : present) {
    const auto known = figures_.find(other);
    if (known == figures_.end() || other == client) continue;
    names.push_back(other);
    figures.push_back(known->second);
  }
  if (figures.empty()) return std::nullopt;
  return learn::Reference{learn::list_text(names), learn::pooled(figures)};
}

std::variant<Accepted, Refusal> AdmissionMachine::compare(const Joining& joining,
                                                          const std::vector<std::string>& present, bool is_of_the_run) {
  if (!joining.figures) return Accepted{};
  const std::string& name = joining.info.name;
  const learn::FiguresVerdict verdict =
      learn::compare(*joining.figures, criteria_.terms.samples, criteria_.terms.task, reference_for(name, present));
  if (!verdict.refusal.empty() && !is_of_the_run) return Refusal{RefusalCode::samples, verdict.refusal};
  figures_.insert_or_assign(name, *joining.figures);
  return Accepted{.warning = verdict.refusal + verdict.warning};
}

std::variant<Accepted, Refusal> AdmissionMachine::compare_with_before(const Joining& joining,
                                                                      const std::vector<std::string>& present) {
  const std::string& name = joining.info.name;
  const auto before = figures_.find(name);
  // A server that was started again has not seen them.
  if (before == figures_.end() || !joining.figures) return compare(joining, present, true);
  const std::string earlier = learn::words_of(before->second);
  const std::string now = learn::words_of(*joining.figures);
  if (earlier == now) return Accepted{};
  return Refusal{RefusalCode::changed_samples, fmt::format("{} is in this run with samples of {}; it returns with {}. "
                                                           "Start it with the data it joined with",
                                                           name, earlier, now)};
}

Refusal check_went_on() { return {RefusalCode::check, "a check does not join"}; }

}  // namespace headstart::server
