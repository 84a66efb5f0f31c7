#include "client/check.hpp"

#include <cmath>
#include <optional>

#include <fmt/format.h>

#include "client/pretrained_store.hpp"
#include "shared/base/expiry.hpp"
#include "shared/base/version.hpp"
#include "shared/net/offload.hpp"
#include "shared/session/conversation.hpp"

namespace headstart::client {

namespace {

constexpr Seconds max_clock_difference = std::chrono::minutes(5);

/// Of this machine's clock, `behind` the server's. Certificates have dates: throws Error(usage) where they may fail.
std::string clock_words(Seconds behind) {
  const std::string words =
      fmt::format("{:.1f} s {} the server's", std::abs(behind.count()), behind.count() < 0 ? "ahead of" : "behind");
  if (std::chrono::abs(behind) <= max_clock_difference) return words;
  throw Error(Errc::usage, fmt::format("this machine's clock is {}: certificates would count as expired or as not "
                                       "valid yet. Set it (NTP), or have the server's set",
                                       words));
}

/// Of something that holds until `end`; `advice` where that is soon.
std::string days_left(SystemTime end, SystemTime now, std::string_view advice) {
  return fmt::format("{}{}", expiry_text(end, now), ends_soon(end, now) ? fmt::format("; {}", advice) : "");
}

std::string words_on_sharing(const plan::Plan& plan) {
  if (!plan.share_model.empty()) return "peers is wanted: a silo's pre-trained model goes to " + plan.share_model;
  return plan.start.starts_with("random") ? "is not asked for: nobody pre-trains"
                                          : "peers is not asked for: no other silo sees pre-trained models";
}

/// The lines on what the run is, but for the one that needs the silo's own word.
void tell_plan(const plan::Terms& terms, const std::function<void(const std::string&)>& tell) {
  tell(fmt::format("rounds      {}", terms.plan.rounds));
  tell(fmt::format("epochs      {} a round", terms.train.epochs));
  tell(fmt::format("rate        learning rate {:g}", terms.train.optimizer.lr));
  tell(fmt::format("start       {}", terms.plan.start));
  if (terms.statistics == plan::StatisticsSource::federated) {
    tell(
        "statistics  mean, deviation and counts of each feature go to the server before anything is trained, within "
        "statistics.min_samples and statistics.range here");
  }
}

/// What a server would refuse. Throws Error(data).
void require_fit(const wire::Join& join, const plan::Terms& terms) {
  if (const auto reason = plan::misfit(join, terms)) throw Error(Errc::data, "this client does not fit: " + *reason);
}

/// On the client's values beside the run's. Throws Error(data) where they cannot be of this run.
std::string words_on_values(const wire::Join& join, const plan::Terms& terms, const std::string& reference_text) {
  if (join.samples.value.empty()) return "values      this client says nothing of them";
  const plan::SampleReport report = plan::report_from_json_text(join.samples.value);
  std::optional<learn::Reference> reference;
  if (!reference_text.empty()) reference = plan::reference_from_json_text(reference_text);
  const learn::FiguresVerdict verdict = learn::compare(report.figures, terms.samples, terms.task, reference);
  if (!verdict.refusal.empty()) throw Error(Errc::data, "this client does not fit: " + verdict.refusal);
  if (!verdict.warning.empty()) return "WARNING     " + verdict.warning;
  const std::string own = fmt::format("values      {} here", learn::words_of(report.figures));
  if (reference) return fmt::format("{}; {} at {}", own, learn::words_of(reference->figures), reference->whose);
  return own + "; the server holds none to compare with, and no other silo has joined yet";
}

/// Ends the conversation however its steps end.
class HangUp {
 public:
  explicit HangUp(session::ClientConversation& conversation) : conversation_(conversation) {}
  ~HangUp() { conversation_.abort(); }
  HangUp(const HangUp&) = delete;
  HangUp& operator=(const HangUp&) = delete;

 private:
  session::ClientConversation& conversation_;
};

}  // namespace

net::Task<> check_run(net::asio::any_io_executor executor, Dial dial, ClientContext context, WallClock wall_clock,
                      std::function<void(const std::string&)> tell) {
  auto dialling = dial();
  auto channel = co_await std::move(dialling);
  if (context.stop.stop_requested()) throw Error(Errc::interrupted, "stopped");
  const std::optional<SystemTime> server_expires = channel->identity_expires();
  auto conversation = std::make_shared<session::ClientConversation>(executor, std::move(channel));
  conversation->start();
  const HangUp hang_up(*conversation);
  const std::stop_callback on_stop(context.stop, [&conversation] { conversation->abort(); });
  std::string who = ", in the clear";
  if (server_expires) {
    who = fmt::format("; its certificate is that of '{}', {}", conversation->identity(),
                      days_left(*server_expires, wall_clock(), "tell the coordinator"));
  }
  tell(fmt::format("server      {} answers{}", conversation->peer(), who));
  wire::Hello hello = greeting(context);
  hello.is_check = true;
  conversation->post(hello);
  const wire::ServerMessage answer = co_await conversation->next_message();
  if (const auto* refused = std::get_if<wire::Refused>(&answer)) throw Error(Errc::rejected, refusal_words(*refused));
  const auto* welcome = std::get_if<wire::Welcome>(&answer);
  if (welcome == nullptr) throw Error(Errc::protocol, "the server sent a message out of turn");
  const auto behind = std::chrono::milliseconds(welcome->unix_time) - wall_clock().time_since_epoch();
  const plan::Terms terms = plan::terms_from_json_text(welcome->terms.value);
  tell(fmt::format("name        '{}' may join", context.name));
  tell(fmt::format("clock       {}", clock_words(std::chrono::duration<double>(behind))));

  if (const auto remark = plan::remark_on_unknown(terms)) tell(fmt::format("note        {}", *remark));
  tell_plan(terms, tell);

  auto joining = net::offload(*context.pool, [&context, &terms] { return context.worker->join(terms); });
  const wire::Join join = co_await std::move(joining);
  tell(fmt::format("share_model {}; this silo says: {}", words_on_sharing(terms.plan),
                   join.withholds_model     ? "answers"
                   : join.shares_with_peers ? "peers"
                                            : "server"));
  require_fit(join, terms);
  tell(fmt::format("data        {} training and {} held-out samples of {}", join.num_examples, join.num_held_out,
                   learn::text_of(terms.task)));
  tell(fmt::format("classes     {}", learn::list_text(terms.samples.classes)));
  for (const std::string& remark : context.worker->remarks()) tell(fmt::format("note        {}", remark));
  tell(words_on_values(join, terms, welcome->reference.value));
  auto building = net::offload(*context.pool, [&context] { return context.worker->global_schema().num_bytes(); });
  const std::uint64_t num_bytes = co_await std::move(building);
  tell(fmt::format("model       '{}', {:.1f} MB each way and round", join.architecture.value,
                   static_cast<double>(num_bytes) / 1e6));
  co_await conversation->close("checked");
}

void check_store(const std::filesystem::path& store, const std::function<void(const std::string&)>& tell) {
  try {
    PretrainedStore(store).require_writable();
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("store.pretrained: {}; a client that is started again would train its model "
                                          "again. Name a folder that can be written, or none",
                                          error.what()));
  }
  tell(fmt::format("store       pre-trained models are kept in {}", store.string()));
}

void check_expiry(const net::TlsExpiry& expiry, SystemTime now, const std::function<void(const std::string&)>& tell) {
  tell(fmt::format("certificate {}", days_left(expiry.certificate, now, "have it signed anew")));
  if (expiry.revoked) tell(fmt::format("revocations {}", days_left(*expiry.revoked, now, "ask for a new list")));
}

}  // namespace headstart::client
