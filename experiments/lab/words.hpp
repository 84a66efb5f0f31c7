// The words that settings take, as the tables that own them have them: for scripts, which repeat none of them.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace headstart::lab {

struct Word {
  std::string name;
  std::string sentence = {};                        ///< Of the help; empty: the table has none.
  nlohmann::json facts = nlohmann::json::object();  ///< What else its table says of it: {"has_labels": true}.
};

/// The words of one or several settings, in the order of the help.
struct Vocabulary {
  std::string name;  ///< "partitions": a key of the JSON, for good.
  std::vector<std::string> settings;
  std::vector<Word> words;
};

/// Of all settings of the programs that take one of several words, or a list of them.
std::vector<Vocabulary> vocabularies();

/// {NAME: {"settings": [...], "words": [{"name", "sentence", ...}]}}.
nlohmann::json to_json(const std::vector<Vocabulary>& vocabularies);
/// For people, a line a word.
std::string text_of(const std::vector<Vocabulary>& vocabularies);

}  // namespace headstart::lab
