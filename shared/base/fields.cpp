#include "shared/base/fields.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/base/names.hpp"
#include "shared/base/printable.hpp"

namespace headstart {

namespace {

/// A value as a message shows it.
std::string shown(const nlohmann::json& value) { return printable(to_line(value), max_quoted_bytes); }

std::string type_with_bounds(std::string_view type, Bounds bounds) {
  if (std::isinf(bounds.min) && std::isinf(bounds.max)) return std::string(type);
  if (std::isinf(bounds.max)) return fmt::format("{}, at least {}", type, bounds.min);
  if (std::isinf(bounds.min)) return fmt::format("{}, at most {}", type, bounds.max);
  return fmt::format("{} from {} to {}", type, bounds.min, bounds.max);
}

double number_within(const nlohmann::json& value, std::string_view type, Bounds bounds) {
  const auto expected = [&] {
    return Error(Errc::usage, fmt::format("expected {}, got {}", type_with_bounds(type, bounds), shown(value)));
  };
  if (!value.is_number()) throw expected();
  const double number = value.get<double>();
  if (!std::isfinite(number) || number < bounds.min || number > bounds.max) throw expected();
  return number;
}

std::int64_t integer_within(const nlohmann::json& value, Bounds bounds) {
  number_within(value, "integer", bounds);
  const bool is_too_large = value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t{INT64_MAX};
  if (!value.is_number_integer() || is_too_large) {
    throw Error(Errc::usage, fmt::format("expected {}, got {}", type_with_bounds("integer", bounds), shown(value)));
  }
  return value.get<std::int64_t>();
}

/// The place of `value` among `words`. Throws Error(usage).
std::size_t index_of(const nlohmann::json& value, const std::vector<std::string>& words, const std::string& type) {
  const auto found = value.is_string() ? std::ranges::find(words, value.get<std::string>()) : words.end();
  if (found == words.end()) throw Error(Errc::usage, fmt::format("expected {}, got {}", type, shown(value)));
  return static_cast<std::size_t>(found - words.begin());
}

/// Reads a JSON list element by element.
template <class T, class ReadOne>
std::vector<T> list_of(const nlohmann::json& value, ReadOne read_one) {
  if (!value.is_array()) throw Error(Errc::usage, "expected a list, got " + shown(value));
  std::vector<T> list;
  for (const nlohmann::json& element : value) list.push_back(read_one(element));
  return list;
}

std::string text_of(const nlohmann::json& value) {
  if (!value.is_string()) throw Error(Errc::usage, "expected text, got " + to_line(value));
  return value.get<std::string>();
}

/// What stands between commas.
std::vector<std::string> parts_of(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

/// The name of the group that help lists a setting in.
std::string group_of(const std::string& key) {
  const std::size_t dot = key.find('.');
  return dot == std::string::npos ? std::string(Fields::general_group) : key.substr(0, dot);
}

/// What help says of one setting.
std::string paragraph_of(const Fields::Field& field) {
  return fmt::format("  {}  ({}; default {})\n      {}\n", field.key, field.type, field.initial.dump(), field.sentence);
}

}  // namespace

void require_path(std::string_view path) {
  if (path.starts_with('~')) {
    throw Error(Errc::usage,
                fmt::format("expected a path written in full, got '{}': only a shell knows what ~ stands for, and "
                            "not behind '='; write /home/NAME/..., or ./~... for a name that begins with ~",
                            path));
  }
  if (path.find('\0') != std::string_view::npos) {
    throw Error(Errc::usage, "expected a path, got " + to_line(path) + ": it has a zero byte");
  }
}

void Fields::number(std::string key, double& target, std::string sentence, Bounds bounds) {
  add({std::move(key),
       std::move(sentence),
       type_with_bounds("number", bounds),
       {},
       [&target, bounds](const nlohmann::json& v) { target = number_within(v, "number", bounds); },
       [&target] { return nlohmann::json(target); }});
}

void Fields::integer(std::string key, std::int64_t& target, std::string sentence, Bounds bounds) {
  add({std::move(key),
       std::move(sentence),
       type_with_bounds("integer", bounds),
       {},
       [&target, bounds](const nlohmann::json& v) { target = integer_within(v, bounds); },
       [&target] { return nlohmann::json(target); }});
}

void Fields::text(std::string key, std::string& target, std::string sentence) {
  checked_text(std::move(key), target, std::move(sentence), [](const std::string&) {});
}

void Fields::checked_text(std::string key, std::string& target, std::string sentence,
                          std::function<void(const std::string&)> check) {
  add({std::move(key),
       std::move(sentence),
       "text",
       {},
       [&target, check = std::move(check)](const nlohmann::json& v) {
         if (!v.is_string()) throw Error(Errc::usage, "expected text, got " + shown(v));
         check(v.get<std::string>());
         target = v.get<std::string>();
       },
       [&target] { return nlohmann::json(target); }});
}

void Fields::path(std::string key, std::string& target, std::string sentence) {
  checked_text(std::move(key), target, std::move(sentence), require_path);
  fields_.back().type = "path";
}

void Fields::flag(std::string key, bool& target, std::string sentence) {
  add({std::move(key),
       std::move(sentence),
       "true or false",
       {},
       [&target](const nlohmann::json& v) {
         if (!v.is_boolean()) throw Error(Errc::usage, "expected true or false, got " + shown(v));
         target = v.get<bool>();
       },
       [&target] { return nlohmann::json(target); }});
}

void Fields::numbers(std::string key, std::vector<double>& target, std::string sentence, Bounds bounds) {
  add({std::move(key),
       std::move(sentence),
       "list of " + type_with_bounds("number", bounds),
       {},
       [&target, bounds](const nlohmann::json& v) {
         target = list_of<double>(v, [&](const auto& e) { return number_within(e, "number", bounds); });
       },
       [&target] { return nlohmann::json(target); }});
}

void Fields::integers(std::string key, std::vector<std::int64_t>& target, std::string sentence, Bounds bounds) {
  add({std::move(key),
       std::move(sentence),
       "list of " + type_with_bounds("integer", bounds),
       {},
       [&target, bounds](const nlohmann::json& v) {
         target = list_of<std::int64_t>(v, [&](const auto& e) { return integer_within(e, bounds); });
       },
       [&target] { return nlohmann::json(target); }});
}

void Fields::texts(std::string key, std::vector<std::string>& target, std::string sentence) {
  add({std::move(key),
       std::move(sentence),
       "list of texts",
       {},
       [&target](const nlohmann::json& v) { target = list_of<std::string>(v, text_of); },
       [&target] { return nlohmann::json(target); }});
}

void Fields::names(std::string key, std::vector<std::string>& target, std::string sentence) {
  add({std::move(key),
       std::move(sentence),
       "list of names, or their number",
       {},
       [&target](const nlohmann::json& v) {
         constexpr Bounds most_numbers{.min = 1, .max = 1'000'000};
         if (v.is_number()) {
           target.clear();
           for (std::int64_t i = 0; i < integer_within(v, most_numbers); ++i) target.push_back(std::to_string(i));
         } else if (v.is_string()) {
           target = parts_of(v.get<std::string>());
         } else {
           target = list_of<std::string>(v, text_of);
         }
       },
       [&target] { return nlohmann::json(target); }});
}

void Fields::add_choice(std::string key, std::string sentence, std::vector<std::string> words,
                        std::function<void(std::size_t)> assign_index, std::function<std::string()> current) {
  const std::string type = fmt::format("one of {}", fmt::join(words, ", "));
  add({std::move(key),
       std::move(sentence),
       type,
       {},
       [words = std::move(words), assign_index = std::move(assign_index), type](const nlohmann::json& v) {
         assign_index(index_of(v, words, type));
       },
       [current = std::move(current)] { return nlohmann::json(current()); }});
}

void Fields::add_choices(std::string key, std::string sentence, std::vector<std::string> words,
                         std::function<void(const std::vector<std::size_t>&)> assign_indices,
                         std::function<std::vector<std::string>()> current) {
  const std::string one = fmt::format("one of {}", fmt::join(words, ", "));
  add({std::move(key),
       std::move(sentence),
       fmt::format("list of {}", fmt::join(words, ", ")),
       {},
       [words = std::move(words), assign_indices = std::move(assign_indices), one](const nlohmann::json& v) {
         const auto indices = list_of<std::size_t>(v, [&](const auto& e) { return index_of(e, words, one); });
         for (std::size_t i = 0; i < indices.size(); ++i) {
           if (std::ranges::count(indices, indices[i]) == 1) continue;
           throw Error(Errc::usage, fmt::format("'{}' stands twice in {}", words[indices[i]], shown(v)));
         }
         assign_indices(indices);
       },
       [current = std::move(current)] { return nlohmann::json(current()); }});
}

void Fields::word(std::string key, std::string& target, std::string sentence, std::vector<std::string> words) {
  const auto assign_index = [&target, words](std::size_t index) { target = words[index]; };
  add_choice(std::move(key), std::move(sentence), std::move(words), assign_index, [&target] { return target; });
}

void Fields::words(std::string key, std::vector<std::string>& target, std::string sentence,
                   std::vector<std::string> words) {
  const auto assign_indices = [&target, words](const std::vector<std::size_t>& indices) {
    target.clear();
    for (const std::size_t index : indices) target.push_back(words[index]);
  };
  add_choices(std::move(key), std::move(sentence), std::move(words), assign_indices, [&target] { return target; });
}

void Fields::add(Field field) {
  field.initial = field.write();
  fields_.push_back(std::move(field));
}

void Fields::group(const std::string& name, std::string words) { words_of_groups_[name] = std::move(words); }

void Fields::withdraw(std::string_view key) {
  if (std::erase_if(fields_, [key](const Field& field) { return field.key == key; }) != 1) {
    throw Error(Errc::internal, fmt::format("there is no setting '{}' to withdraw", key));
  }
}

void Fields::assign(const std::string& key, const nlohmann::json& value, std::string_view origin) {
  const auto found = std::ranges::find(fields_, key, &Field::key);
  if (found == fields_.end()) {
    std::vector<std::string> keys;
    for (const Field& field : fields_) keys.push_back(field.key);
    const std::string near = nearest(key, keys);
    throw Error(Errc::usage, fmt::format("{}: unknown setting {}{}", origin, quotation(key, max_quoted_bytes, '\''),
                                         near.empty() ? "; --help all lists them" : "; did you mean '" + near + "'?"));
  }
  try {
    found->read(value);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: setting '{}': {}", origin, key, error.what()));
  }
}

void Fields::load_under(const std::string& prefix, const nlohmann::json& object, std::string_view origin,
                        std::set<std::string>& seen) {
  for (const auto& [name, value] : object.items()) {
    const std::string key = prefix.empty() ? name : prefix + "." + name;
    const bool is_group =
        std::ranges::any_of(fields_, [&key](const Field& field) { return field.key.starts_with(key + "."); });
    if (value.is_object() && (is_group || !value.empty())) {
      load_under(key, value, origin, seen);
      continue;
    }
    assign(key, value, origin);
    if (!seen.insert(key).second) {
      throw Error(Errc::usage, fmt::format("{}: setting '{}' stands twice, with dots and within objects", origin, key));
    }
  }
}

void Fields::load(const nlohmann::json& document, std::string_view origin) {
  if (!document.is_object()) throw Error(Errc::usage, fmt::format("{}: expected a JSON object of settings", origin));
  std::set<std::string> seen;
  load_under("", document, origin, seen);
}

void Fields::load_file(const std::filesystem::path& file) {
  nlohmann::json document;
  try {
    document = read_json(file);
  } catch (const Error& error) {
    throw Error(Errc::usage, error.what());
  }
  load(document, file.string());
}

void Fields::set(std::string_view assignment) {
  const std::size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    throw Error(Errc::usage, fmt::format("--set {}: expected key=value", assignment));
  }
  const std::string key(assignment.substr(0, equals));
  const std::string text(assignment.substr(equals + 1));
  nlohmann::json value(nlohmann::json::value_t::discarded);
  try {
    value = parse_json(text, key);
  } catch (const Error&) {
    // Text without quotation marks.
  }
  const auto field = std::ranges::find(fields_, key, &Field::key);
  const bool wants_text = field != fields_.end() && field->initial.is_string();
  if (value.is_discarded() || (wants_text && !value.is_string())) value = text;
  assign(key, value, "--set " + std::string(assignment));
}

nlohmann::json Fields::resolved() const {
  nlohmann::json document = nlohmann::json::object();
  for (const Field& field : fields_) {
    std::string pointer = "/" + field.key;
    std::ranges::replace(pointer, '.', '/');
    document[nlohmann::json::json_pointer(pointer)] = field.write();
  }
  return document;
}

std::vector<std::string> Fields::sections() const {
  std::vector<std::string> sections;
  for (const Field& field : fields_) {
    std::string section = field.key.substr(0, field.key.find('.'));
    if (std::ranges::find(sections, section) == sections.end()) sections.push_back(std::move(section));
  }
  return sections;
}

std::string Fields::help() const {
  std::string text;
  for (const Field& field : fields_) text += paragraph_of(field);
  return text;
}

std::string Fields::help(std::string_view name) const {
  const std::string prefix = std::string(name) + ".";
  std::string text;
  for (const Field& field : fields_) {
    const bool is_meant = field.key == name || field.key.starts_with(prefix) ||
                          (name == general_group && group_of(field.key) == general_group);
    if (is_meant) text += paragraph_of(field);
  }
  return text;
}

std::vector<Fields::Group> Fields::groups() const {
  std::vector<Group> groups;
  for (const Field& field : fields_) {
    const std::string name = group_of(field.key);
    auto found = std::ranges::find(groups, name, &Group::name);
    if (found == groups.end()) {
      const auto words = words_of_groups_.find(name);
      found = groups.insert(found, {name, words == words_of_groups_.end() ? "" : words->second, 0});
      if (name == general_group) found->words = "Without a dot:";
    }
    if (name == general_group) found->words += (found->num_settings == 0 ? " " : ", ") + field.key;
    ++found->num_settings;
  }
  return groups;
}

}  // namespace headstart
