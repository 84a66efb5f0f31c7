#include "experiments/lab/words.hpp"

#include <map>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "client/config.hpp"
#include "experiments/lab/advisor.hpp"
#include "experiments/lab/pair_settings.hpp"
#include "experiments/lab/peer_settings.hpp"
#include "server/config/server_config.hpp"

namespace headstart::lab {
namespace {

template <class Options>
void collect(std::map<std::string, std::string>& types) {
  Options options;
  Fields fields;
  declare_fields(fields, options);
  for (const Fields::Field& field : fields.all()) types[field.key] = field.type;
}

/// Of all settings that server, client and lab take: "one of a, b", "list of a, b", "integer from 0 to 9", ...
std::map<std::string, std::string> types_of_settings() {
  std::map<std::string, std::string> types;
  collect<server::ServerConfig>(types);
  collect<client::ClientConfig>(types);
  collect<PeerSettings>(types);
  collect<PairSettings>(types);
  collect<PairPlan>(types);
  PeerPlan plan;  // of its lists the graphs alone: study.methods takes other words than in a study of pairs
  Fields fields;
  declare_fields(fields, plan);
  for (const Fields::Field& field : fields.all()) {
    if (field.key == "study.graphs") types[field.key] = field.type;
  }
  collect<Situation>(types);
  return types;
}

std::string joined(const Vocabulary& vocabulary) {
  std::vector<std::string> names;
  for (const Word& word : vocabulary.words) names.push_back(word.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

TEST_CASE("words: each vocabulary has the words that its settings take") {
  const std::map<std::string, std::string> types = types_of_settings();
  for (const Vocabulary& vocabulary : vocabularies()) {
    CAPTURE(vocabulary.name);
    for (const std::string& key : vocabulary.settings) {
      CAPTURE(key);
      REQUIRE(types.contains(key));
      if (key == "data.set") continue;           // text: an unknown set is refused where it is loaded
      if (key == "validation.metric") continue;  // text: some of its words take a class
      const std::string words = joined(vocabulary);
      CHECK((types.at(key) == "one of " + words || types.at(key) == "list of " + words));
    }
  }
}

TEST_CASE("words: each setting that takes one of several words has its vocabulary") {
  std::map<std::string, int> told;
  for (const Vocabulary& vocabulary : vocabularies()) {
    for (const std::string& key : vocabulary.settings) ++told[key];
  }
  for (const auto& [key, type] : types_of_settings()) {
    CAPTURE(key);
    if (type.starts_with("one of ")) CHECK(told[key] == 1);
  }
}

TEST_CASE("words: as JSON with what their tables say of them") {
  const nlohmann::json document = to_json(vocabularies());
  const nlohmann::json& strategies = document.at("strategies");
  CHECK(strategies.at("settings") == nlohmann::json({"federation.strategy"}));
  CHECK(strategies.at("words").at(0).at("name") == "fedavg");
  CHECK_FALSE(strategies.at("words").at(0).at("sentence").get<std::string>().empty());
  CHECK(strategies.at("words").back().at("needs_public_set") == true);
  std::map<std::string, bool> labels;
  for (const nlohmann::json& word : document.at("pair_transfer_sets").at("words")) {
    labels[word.at("name").get<std::string>()] = word.at("has_labels").get<bool>();
    CHECK_FALSE(word.contains("sentence"));
  }
  CHECK(labels == std::map<std::string, bool>{
                      {"student", true}, {"public-large", false}, {"public-small", false}, {"public-labeled", true}});
}

TEST_CASE("words: for people a line a word, under the settings that take it") {
  const std::vector<Vocabulary> two = {
      {"kinds", {"a.kind", "b.kind"}, {{.name = "plain"}}},
      {"rules", {"rule"}, {{.name = "mean", .sentence = "adds up"}, {.name = "median", .sentence = "the middle"}}}};
  CHECK(text_of(two) ==
        "a.kind, b.kind\n  plain\nrule\n  mean                adds up\n  median              the middle\n");
}

}  // namespace
}  // namespace headstart::lab
