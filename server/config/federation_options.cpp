#include "server/config/federation_options.hpp"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

#include "shared/base/error.hpp"

namespace headstart::server {

std::string text_of(const StartCandidate& candidate) {
  return std::string(word_of(Choices<StartModel>(start_words), candidate.model)) +
         (candidate.head == StartHead::sums ? "+head" : "");
}

std::vector<StartCandidate> possible_starts(const FederationOptions& options) {
  if (options.start != StartModel::automatic) return {{options.start, options.head.start}};
  constexpr std::string_view suffix = "+head";
  if (options.candidates.empty()) throw Error(Errc::usage, "start.candidates: name at least one start");
  std::vector<StartCandidate> starts;
  for (const std::string& text : options.candidates) {
    const bool has_head = text.ends_with(suffix);
    const std::string_view word(text.data(), text.size() - (has_head ? suffix.size() : 0));
    const auto* const found = std::ranges::find(start_words, word, &std::pair<StartModel, std::string_view>::second);
    if (found == std::end(start_words) || found->first == StartModel::automatic) {
      throw Error(Errc::usage,
                  fmt::format("start.candidates: '{}' is no start; random, best_local, average and kd are, "
                              "each also with +head",
                              text));
    }
    starts.push_back({found->first, has_head ? StartHead::sums : StartHead::own});
  }
  return starts;
}

bool may_start_from(const FederationOptions& options, StartModel model) {
  return std::ranges::any_of(possible_starts(options),
                             [model](const StartCandidate& start) { return start.model == model; });
}

bool pretrains(const FederationOptions& options) {
  return std::ranges::any_of(possible_starts(options),
                             [](const StartCandidate& start) { return start.model != StartModel::random; });
}

bool teaches_by_models(const FederationOptions& options) {
  return may_start_from(options, StartModel::kd) && options.consolidation.exchange == TeachingExchange::models &&
         options.consolidation.target == TeachingTarget::teachers;
}

bool fits_heads(const FederationOptions& options) {
  return options.head.rounds == StartHead::sums ||
         std::ranges::any_of(possible_starts(options),
                             [](const StartCandidate& start) { return start.head == StartHead::sums; });
}

std::int64_t quorum_of(const FederationOptions& options) {
  return options.min_clients > 0 ? options.min_clients : (options.num_clients + 1) / 2;
}

}  // namespace headstart::server
