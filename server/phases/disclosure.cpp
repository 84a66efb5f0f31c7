#include "server/phases/disclosure.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "shared/base/error.hpp"

namespace headstart::server {

namespace {

std::string list_of(const std::vector<std::string>& names) {
  return names.empty() ? "nobody" : fmt::format("{}", fmt::join(names, ", "));
}

/// How many silos must share with peers for `options`, and the setting that wants it.
struct Need {
  std::size_t num_silos = 0;
  std::string why;
};

Need need_of(const FederationOptions& options, TransferSet transfer) {
  const ConsolidationOptions& kd = options.consolidation;
  Need need;
  const auto raise = [&need](std::size_t num_silos, std::string why) {
    if (num_silos > need.num_silos) need = {num_silos, std::move(why)};
  };
  const bool is_rated_at_clients = options.validation == ValidationSource::federated;
  if (options.start == StartModel::best_local)
    raise(1, "start.model best_local hands one silo's weights to all others");
  if (options.start != StartModel::kd) return need;
  if (kd.student != StudentStart::untrained) {
    raise(1, fmt::format("consolidation.student {} starts from one silo's weights, which reach all others",
                         word_of(Choices<StudentStart>(student_words), kd.student)));
  }
  if (kd.target == TeachingTarget::joint) raise(2, "consolidation.target joint sends every silo the others' models");
  const bool are_weighed = learn::needs_ratings(kd.weighting) && kd.target == TeachingTarget::teachers;
  if (is_rated_at_clients && are_weighed) {
    raise(kd.student == StudentStart::untrained ? 1 : 2,
          fmt::format("consolidation.weights {} with validation.source federated has other silos rate the teachers",
                      word_of(Choices<learn::TeacherWeighting>(learn::weighting_words), kd.weighting)));
  }
  if (transfer == TransferSet::student) {
    raise(2, "consolidation.transfer student sends the teachers' models to the student's silo");
  }
  return need;
}

/// Of a start that is not auto.
ConsentRuling ruling_of(const FederationOptions& options, const Consents& consents, bool has_public_set) {
  ConsentRuling ruling{.transfer = options.consolidation.transfer, .fallback = {}, .refusal = {}};
  const std::size_t num_sharing = consents.with_peers.size();
  const bool is_on_student_data =
      options.start == StartModel::kd && options.consolidation.transfer == TransferSet::student;
  if (is_on_student_data && num_sharing < 2 && has_public_set) {
    ruling.transfer = TransferSet::public_large;
    ruling.fallback = fmt::format(
        "consolidation on the public set instead of student data: that takes two silos with share_model: peers, and "
        "there are {}",
        num_sharing);
  }
  const std::size_t num_silos = num_sharing + consents.with_server.size();
  if (options.start == StartModel::average && num_silos == 0) {
    ruling.refusal =
        "start.model average needs pre-trained models, and every silo says share_model: answers. Choose another "
        "start.model, or have silos say server or peers";
    return ruling;
  }
  const bool needs_models = options.start == StartModel::kd && teaches_by_models(options) && num_silos < 2;
  if (needs_models && !consents.with_nobody.empty()) {
    ruling.refusal = fmt::format(
        "start.model kd by models needs those of two silos, and {} give them; {} say share_model: answers. Set "
        "consolidation.exchange=answers, or have silos say server or peers",
        num_silos, list_of(consents.with_nobody));
    return ruling;
  }
  if (options.start == StartModel::average && num_silos < 3 && num_sharing < num_silos) {
    ruling.refusal = fmt::format(
        "start.model average of fewer than three silos' models shows each its peer's; that takes share_model: peers at "
        "all {} of them, and it is not set at {}. Have them set it, or choose another start.model",
        num_silos, list_of(consents.with_server));
    return ruling;
  }
  if (const Need need = need_of(options, ruling.transfer); num_sharing < need.num_silos) {
    const bool teaches_elsewhere = is_on_student_data && ruling.transfer == TransferSet::student;
    ruling.refusal = fmt::format(
        "{}; that takes share_model: peers at {} silo(s), and it is set at {} ({}). Have them set it, or choose {}",
        need.why, need.num_silos, num_sharing, list_of(consents.with_peers),
        teaches_elsewhere
            ? "another start.model, or consolidation.transfer=public with a public set at the server"
            : "another start, consolidation.student untrained, consolidation.weights equal, or a validation "
              "set at the server");
  }
  return ruling;
}

}  // namespace

ConsentRuling rule_on_consents(const FederationOptions& options, const Consents& consents, bool has_public_set) {
  if (options.start != StartModel::automatic) return ruling_of(options, consents, has_public_set);
  ConsentRuling all{.transfer = options.consolidation.transfer, .fallback = {}, .refusal = {}};
  std::size_t num_left = 0;
  for (const StartCandidate& candidate : possible_starts(options)) {
    FederationOptions alone = options;
    alone.start = candidate.model;
    const ConsentRuling ruling = ruling_of(alone, consents, has_public_set);
    if (!ruling.refusal.empty()) {
      all.dropped.emplace_back(text_of(candidate), ruling.refusal);
      continue;
    }
    ++num_left;
    if (candidate.model != StartModel::kd) continue;
    all.transfer = ruling.transfer;
    all.fallback = ruling.fallback;
  }
  if (num_left > 0) return all;
  all.refusal = "start.model auto: what the silos consent to leaves none of start.candidates";
  for (const auto& [start, why] : all.dropped) all.refusal += fmt::format("; {}: {}", start, why);
  return all;
}

std::string words_of(const Consents& consents) {
  std::string words =
      fmt::format("share_model: other silos may see the pre-trained models of {}; the server alone those of {}",
                  list_of(consents.with_peers), list_of(consents.with_server));
  if (!consents.with_nobody.empty()) words += fmt::format("; nobody those of {}", list_of(consents.with_nobody));
  return words;
}

ReleasedState DisclosurePolicy::release(const std::string& owner, const LocalModelRecord& model,
                                        std::shared_ptr<session::ByteSource> bytes) const {
  if ((!model.shares_with_peers || model.withholds_model) && owner != recipient_) {
    throw Error(Errc::internal, fmt::format("{}'s pre-trained model was to be sent to {}, and {} says share_model: {}; "
                                            "it was not sent",
                                            owner, recipient_, owner, model.withholds_model ? "answers" : "server"));
  }
  plan::Form form{.model = model.spec, .tensors = {}};
  return {owner, "model of " + owner, std::move(form), model.digest, std::move(bytes)};
}

ReleasedState DisclosurePolicy::release_model(std::string what, const DigestedState& model) {
  return {std::string(), std::move(what), plan::Form{}, model.digest, session::source_of(model.state)};
}

ReleasedState DisclosurePolicy::release_tensors(std::string what, const DigestedState& tensors) {
  plan::Form form{.model = {}, .tensors = tensors.state.state().schema().tensors()};
  return {std::string(), std::move(what), std::move(form), tensors.digest, session::source_of(tensors.state)};
}

}  // namespace headstart::server
