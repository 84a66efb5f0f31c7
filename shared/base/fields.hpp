// Settings, each declared once: the declaration loads JSON, bounds values, names unknown keys,
// writes the resolved configuration and prints the help.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace headstart {

/// Throws Error(usage) where `path` begins with '~', which a shell replaces by a home folder and no program of ours: a
/// folder of that name would be made. Also for a zero byte, which would end the path.
void require_path(std::string_view path);

/// Inclusive bounds of a number.
struct Bounds {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
};

/// The words of an enumeration, in the order in which help lists them.
template <class E>
using Choices = std::span<const std::pair<E, std::string_view>>;

/// The word of a value, as the configuration, logs and files write it.
template <class E>
std::string_view word_of(Choices<E> choices, E value) {
  for (const auto& [candidate, word] : choices) {
    if (candidate == value) return word;
  }
  return "?";
}

/// A table of settings bound to the members of an options object, which must outlive it.
/// Keys are dotted ("train.lr"); in JSON files each dot opens an object.
class Fields {
 public:
  void number(std::string key, double& target, std::string sentence, Bounds bounds = {});
  void integer(std::string key, std::int64_t& target, std::string sentence, Bounds bounds = {});
  void text(std::string key, std::string& target, std::string sentence);
  /// `check` throws Error(usage) for a text that cannot be meant.
  void checked_text(std::string key, std::string& target, std::string sentence,
                    std::function<void(const std::string&)> check);
  /// A file or folder; empty where none is named. What require_path() refuses is refused.
  void path(std::string key, std::string& target, std::string sentence);
  void flag(std::string key, bool& target, std::string sentence);
  void numbers(std::string key, std::vector<double>& target, std::string sentence, Bounds bounds = {});
  void integers(std::string key, std::vector<std::int64_t>& target, std::string sentence, Bounds bounds = {});
  void texts(std::string key, std::vector<std::string>& target, std::string sentence);
  /// A list of names, or a number N for the names 0 to N-1. On the command line the names may stand without quotation
  /// marks, with commas between them.
  void names(std::string key, std::vector<std::string>& target, std::string sentence);

  template <class E>
  void choice(std::string key, E& target, std::string sentence, Choices<E> choices) {
    std::vector<std::string> words;
    for (const auto& [value, word] : choices) words.emplace_back(word);
    add_choice(
        std::move(key), std::move(sentence), std::move(words),
        [&target, choices](std::size_t index) { target = choices[index].first; },
        [&target, choices] { return std::string(word_of(choices, target)); });
  }

  /// A list of words, none twice.
  template <class E>
  void choices(std::string key, std::vector<E>& target, std::string sentence, Choices<E> choices) {
    std::vector<std::string> words;
    for (const auto& [value, word] : choices) words.emplace_back(word);
    add_choices(
        std::move(key), std::move(sentence), std::move(words),
        [&target, choices](const std::vector<std::size_t>& indices) {
          target.clear();
          for (const std::size_t index : indices) target.push_back(choices[index].first);
        },
        [&target, choices] {
          std::vector<std::string> current;
          for (const E value : target) current.emplace_back(word_of(choices, value));
          return current;
        });
  }

  /// One of `words`.
  void word(std::string key, std::string& target, std::string sentence, std::vector<std::string> words);
  /// A list of `words`, none twice.
  void words(std::string key, std::vector<std::string>& target, std::string sentence, std::vector<std::string> words);

  /// Says in a few words what the settings below `name` are about ("train" for "train.lr"). The help lists groups by
  /// the part of a key before its first dot. Of words for the same name the later ones count.
  void group(const std::string& name, std::string words);

  /// Takes a declared setting back: it keeps its value and is unknown from now on. Throws Error(internal).
  void withdraw(std::string_view key);

  /// Reads every value of `document`. Throws Error(usage) for an unknown key (with the nearest known one),
  /// a value of the wrong type or out of bounds, or a setting that is named twice, once with dots and once within
  /// objects; `origin` (a file name) opens the message.
  void load(const nlohmann::json& document, std::string_view origin);
  void load_file(const std::filesystem::path& file);

  /// One `key=value`; the value is JSON, or else taken as text. Throws as load() does.
  void set(std::string_view assignment);

  /// All settings with their present values, nested.
  [[nodiscard]] nlohmann::json resolved() const;

  /// What the keys begin with, up to the first dot; each once, in the order of declaration.
  [[nodiscard]] std::vector<std::string> sections() const;

  /// One paragraph a setting: key, type and bounds, default (the value at declaration), sentence.
  [[nodiscard]] std::string help() const;

  /// The same for the setting `name` and those below it ("train" has "train.lr"), or for those without a dot where it
  /// is general_group. Empty where there is none.
  [[nodiscard]] std::string help(std::string_view name) const;

  /// The name of the group of all settings without a dot.
  static constexpr std::string_view general_group = "general";

  struct Group {
    std::string name;   ///< The part of its keys before the first dot, or general_group.
    std::string words;  ///< What group() said; the keys themselves for general_group.
    std::size_t num_settings = 0;
  };
  /// The groups of all settings, in the order of declaration.
  [[nodiscard]] std::vector<Group> groups() const;

  struct Field {
    std::string key;
    std::string sentence;
    std::string type;  ///< "number 0..1", "one of a, b", ...
    nlohmann::json initial;
    std::function<void(const nlohmann::json&)> read;  ///< Throws Error(usage) without origin.
    std::function<nlohmann::json()> write;
  };
  [[nodiscard]] const std::vector<Field>& all() const { return fields_; }

 private:
  void add(Field field);
  void add_choice(std::string key, std::string sentence, std::vector<std::string> words,
                  std::function<void(std::size_t)> assign, std::function<std::string()> current);
  void add_choices(std::string key, std::string sentence, std::vector<std::string> words,
                   std::function<void(const std::vector<std::size_t>&)> assign,
                   std::function<std::vector<std::string>()> current);
  void assign(const std::string& key, const nlohmann::json& value, std::string_view origin);
  void load_under(const std::string& prefix, const nlohmann::json& object, std::string_view origin,
                  std::set<std::string>& seen);

  std::vector<Field> fields_;
  std::map<std::string, std::string> words_of_groups_;
};

}  // namespace headstart
