#include <algorithm>
#include <iostream>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "client/config.hpp"
#include "experiments/lab/advisor.hpp"
#include "experiments/lab/commands.hpp"
#include "experiments/lab/pair_settings.hpp"
#include "experiments/lab/peer_settings.hpp"
#include "experiments/lab/words.hpp"
#include "server/config/server_config.hpp"
#include "server/strategies/strategy.hpp"
#include "shared/base/log.hpp"
#include "shared/learn/distill/dissimilarity.hpp"
#include "shared/learn/metrics/metric.hpp"
#include "shared/learn/peers/peer_method.hpp"

namespace headstart::lab {

namespace {

std::vector<Word> words_of(const std::vector<std::string>& names) {
  std::vector<Word> words;
  for (const std::string& name : names) words.push_back({.name = name});
  return words;
}

template <class E, std::size_t N>
std::vector<Word> words_of(const std::pair<E, std::string_view> (&choices)[N]) {
  std::vector<Word> words;
  for (const auto& [value, name] : choices) words.push_back({.name = std::string(name)});
  return words;
}

std::vector<Word> strategy_words() {
  std::vector<Word> words;
  for (const server::StrategyRow& row : server::strategies()) {
    words.push_back({.name = std::string(row.name),
                     .sentence = std::string(row.sentence),
                     .facts = {{"min_updates", row.min_updates}, {"needs_public_set", row.needs_public_set}}});
  }
  return words;
}

std::vector<Word> measure_words() {
  std::vector<Word> words;
  for (const learn::Dissimilarity* row : learn::dissimilarities()) {
    words.push_back({.name = std::string(row->name), .sentence = std::string(row->words)});
  }
  return words;
}

std::vector<Word> method_words() {
  std::vector<Word> words;
  for (const auto& [method, name] : pair_method_words) {
    words.push_back({.name = std::string(name), .facts = {{"is_searched", is_searched(method)}}});
  }
  return words;
}

std::vector<Word> pair_transfer_words_with_labels() {
  std::vector<Word> words;
  for (const auto& [transfer, name] : pair_transfer_words) {
    words.push_back({.name = std::string(name), .facts = {{"has_labels", has_labels(transfer)}}});
  }
  return words;
}

std::vector<Word> peer_method_words() {
  std::vector<Word> words;
  for (const learn::PeerMethodRow& row : learn::peer_methods()) {
    words.push_back({.name = std::string(row.name),
                     .sentence = std::string(row.sentence),
                     .facts = {{"needs_public_set", row.needs_public_set}}});
  }
  return words;
}

/// "consolidation.KEY", "feddf.KEY", "kd.KEY".
std::vector<std::string> of_distillation(std::string_view key) {
  return {fmt::format("consolidation.{}", key), fmt::format("feddf.{}", key), fmt::format("kd.{}", key)};
}

}  // namespace

std::vector<Vocabulary> vocabularies() {
  return {
      {"data_sets", {"data.set"}, words_of(learn::data_set_words())},
      {"partitions", {"partition.kind", "study.partitions"}, words_of(learn::partition_words())},
      {"starts", {"start.model"}, words_of(server::start_words)},
      {"start_heads", {"start.head", "rounds.head"}, words_of(server::start_head_words)},
      {"head_methods", {"head.method"}, words_of(server::head_method_words)},
      {"teaching_exchanges", {"consolidation.exchange"}, words_of(server::exchange_words)},
      {"teaching_targets", {"consolidation.target"}, words_of(server::target_words)},
      {"densities", {"consolidation.density"}, words_of(learn::density_words)},
      {"precisions", {"run.precision"}, words_of(learn::precision_words)},
      {"missing_values", {"data.missing"}, words_of(learn::missing_words)},
      {"statistics", {"data.statistics"}, words_of(plan::statistics_words)},
      {"strategies", {"federation.strategy"}, strategy_words()},
      {"students", {"consolidation.student"}, words_of(server::student_words)},
      {"teacher_weights", {"consolidation.weights"}, words_of(learn::weighting_words)},
      {"transfer_sets", {"consolidation.transfer"}, words_of(server::transfer_words)},
      {"kept_states", {"consolidation.keep"}, words_of(server::kept_words)},
      {"tuning", {"consolidation.tune"}, words_of(server::choice_words)},
      {"measures", of_distillation("measure"), measure_words()},
      {"measure_strengths", of_distillation("strength"), words_of(learn::strength_words)},
      {"reductions", of_distillation("reduction"), words_of(learn::reduction_words)},
      {"teacher_averages", of_distillation("average"), words_of(learn::average_words)},
      {"pair_methods", {"study.methods"}, method_words()},
      {"pair_transfer_sets", {"study.transfers"}, pair_transfer_words_with_labels()},
      {"peer_methods", {"peers.method"}, peer_method_words()},
      {"graphs", {"graph.kind", "study.graphs"}, words_of(learn::graph_words())},
      {"trained_parts", {"peers.trains"}, words_of(learn::trains_words)},
      {"gossip_starts", {"peers.gossip_start"}, words_of(learn::gossip_start_words)},
      {"validation_sources", {"validation.source"}, words_of(server::validation_words)},
      {"metrics", {"validation.metric"}, words_of(learn::metric_words)},
      {"optimizers",
       {"train.optimizer", "pretrain.optimizer", "consolidation.optimizer", "feddf.optimizer", "kd.optimizer"},
       words_of(learn::optimizer_words)},
      {"norms", {"model.norm", "own.norm"}, words_of(learn::norm_words)},
      {"sharing", {"share_model"}, words_of(client::sharing_words)},
      {"metric_sharing", {"share_metrics"}, words_of(client::metric_sharing_words)},
      {"log_formats", {"run.log_format", "log_format"}, words_of(log_format_words)},
      {"advised_teachers", {"teacher"}, words_of(strength_words)},
      {"advised_balances", {"balance"}, words_of(balance_words)},
  };
}

nlohmann::json to_json(const std::vector<Vocabulary>& vocabularies) {
  nlohmann::json document = nlohmann::json::object();
  for (const Vocabulary& vocabulary : vocabularies) {
    nlohmann::json words = nlohmann::json::array();
    for (const Word& word : vocabulary.words) {
      nlohmann::json entry = word.facts;
      entry["name"] = word.name;
      if (!word.sentence.empty()) entry["sentence"] = word.sentence;
      words.push_back(std::move(entry));
    }
    document[vocabulary.name] = {{"settings", vocabulary.settings}, {"words", std::move(words)}};
  }
  return document;
}

std::string text_of(const std::vector<Vocabulary>& vocabularies) {
  std::string text;
  for (const Vocabulary& vocabulary : vocabularies) {
    text += fmt::format("{}\n", fmt::join(vocabulary.settings, ", "));
    for (const Word& word : vocabulary.words) {
      text += word.sentence.empty() ? fmt::format("  {}\n", word.name)
                                    : fmt::format("  {:<18}  {}\n", word.name, word.sentence);
    }
  }
  return text;
}

Command add_words(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("words", "Lists the words that settings take");
  const auto wants_json = std::make_shared<bool>(false);
  sub->add_flag("--json", *wants_json, "As one JSON object, for scripts");
  return {sub, [wants_json] {
            const std::vector<Vocabulary> all = vocabularies();
            std::cout << (*wants_json ? to_json(all).dump(2) + "\n" : text_of(all));
            return 0;
          }};
}

}  // namespace headstart::lab
