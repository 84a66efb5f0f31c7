#include "shared/base/help.hpp"

#include <algorithm>
#include <sstream>
#include <utility>

#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/base/names.hpp"
#include "shared/base/printable.hpp"

namespace headstart {

namespace {

constexpr std::size_t max_columns = 100;
constexpr std::size_t max_default_columns = 20;

/// The words of `text` in lines of at most `width` columns; a longer word has a line of its own.
std::vector<std::string> lines_of(const std::string& text, std::size_t width) {
  std::vector<std::string> lines(1);
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    begin = end + 1;
    if (!lines.back().empty() && lines.back().size() + 1 + word.size() > width) lines.emplace_back();
    lines.back() += (lines.back().empty() ? "" : " ") + word;
  }
  return lines;
}

struct Row {
  std::string left;
  std::string right;
};

/// The columns that the right side of a table may have beside a left side of `left` columns.
std::size_t columns_beside(std::size_t left) { return max_columns - left - 4; }

std::string table_of(const std::vector<Row>& rows) {
  std::size_t width = 0;
  for (const Row& row : rows) width = std::max(width, row.left.size());
  std::string text;
  for (const Row& row : rows) {
    std::string left = row.left;
    for (const std::string& line : lines_of(row.right, columns_beside(width))) {
      text += fmt::format("  {:<{}}  {}\n", left, width, line);
      left.clear();
    }
  }
  return text;
}

/// `sentence`, or where it has more than `width` columns what stands before its first ';', ':' or '.' that is not
/// within brackets.
std::string brief_of(const std::string& sentence, std::size_t width) {
  if (sentence.size() <= width) return sentence;
  int depth = 0;
  for (std::size_t i = 0; i + 1 < sentence.size(); ++i) {
    const char c = sentence[i];
    depth += c == '(' ? 1 : c == ')' ? -1 : 0;
    const bool is_mark = c == ';' || c == ':' || c == '.';
    if (is_mark && depth == 0 && sentence[i + 1] == ' ') return sentence.substr(0, i) + ".";
  }
  return sentence;
}

/// `text`, or where it has more than `width` columns its first words and "...".
std::string one_line_of(const std::string& text, std::size_t width) {
  return text.size() <= width ? text : lines_of(text, width - 4).front() + " ...";
}

/// Fields::help(), in lines that are not too long.
std::string all_settings(const Fields& fields) {
  constexpr std::size_t indent = 6;  // of a sentence
  std::string text = "Settings:\n";
  std::istringstream paragraphs(fields.help());
  for (std::string line; std::getline(paragraphs, line);) {
    const std::size_t begin = line.find_first_not_of(' ');
    std::string blanks(begin, ' ');
    for (const std::string& part : lines_of(line.substr(begin), max_columns - indent)) {
      text += blanks + part + "\n";
      blanks = std::string(indent, ' ');
    }
  }
  return text;
}

/// "headstart-lab simulate", without the folder that the program was called in.
std::string name_of(const CLI::App& app) {
  if (app.get_parent() != nullptr) return name_of(*app.get_parent()) + " " + app.get_name();
  return app.get_name().substr(app.get_name().rfind('/') + 1);
}

std::string options_of(const CLI::App& app) {
  std::vector<Row> rows;
  for (const CLI::Option* option : app.get_options()) {
    const std::string type = option->get_type_name();
    const std::string names = option->get_name(/*positional=*/false, /*all_options=*/true);
    rows.push_back({names + (type.empty() ? "" : " " + type) + (option->get_required() ? " REQUIRED" : ""),
                    option->get_description()});
  }
  return "Options:\n" + table_of(rows);
}

const Fields::Field& field_of(const Fields& fields, const std::string& key) {
  const auto found = std::ranges::find(fields.all(), key, &Fields::Field::key);
  if (found == fields.all().end()) throw Error(Errc::internal, fmt::format("there is no setting '{}' to show", key));
  return *found;
}

std::string first_settings(const Fields& fields, const std::vector<std::string>& first) {
  std::vector<Row> rows;
  std::size_t key_width = 0;
  std::size_t default_width = 0;
  for (const std::string& key : first) {
    std::string value = field_of(fields, key).initial.dump();
    if (value.size() > max_default_columns) value = value.substr(0, max_default_columns - 3) + "...";
    key_width = std::max(key_width, key.size());
    default_width = std::max(default_width, value.size());
    rows.push_back({key, value});
  }
  const std::size_t left_width = key_width + 2 + default_width;
  for (Row& row : rows) {
    const std::string sentence = brief_of(field_of(fields, row.left).sentence, columns_beside(left_width));
    row = {fmt::format("{:<{}}  {:<{}}", row.left, key_width, row.right, default_width), sentence};
  }
  return "Settings that a first run needs, with their defaults:\n" + table_of(rows);
}

std::string group_table(const std::vector<Fields::Group>& groups) {
  std::size_t width = 0;
  for (const Fields::Group& group : groups) width = std::max(width, group.name.size());
  std::vector<Row> rows;
  for (const Fields::Group& group : groups) {
    const std::string left = fmt::format("{:<{}}  {:>2}", group.name, width, group.num_settings);
    rows.push_back({left, one_line_of(group.words, columns_beside(left.size()))});
  }
  return "Groups of settings; --help GROUP lists one of them, --help all lists every setting:\n" + table_of(rows);
}

}  // namespace

std::string short_help(const CLI::App& app, const Fields& fields, const std::vector<std::string>& first) {
  std::string text;
  for (const std::string& line : lines_of(app.get_description(), max_columns)) text += line + "\n";
  text += fmt::format("\nUsage: {} [OPTIONS]\n\n{}\n", name_of(app), options_of(app));
  const std::vector<Fields::Group> groups = fields.groups();
  if (groups.size() == 1) {
    text += all_settings(fields) + "\n";
  } else {
    if (!first.empty()) text += first_settings(fields, first) + "\n";
    text += group_table(groups) + "\n";
  }
  return text + exit_code_help();
}

std::string group_help(const Fields& fields, const std::string& name) {
  std::string text = fields.help(name);
  if (!text.empty()) return text;
  std::vector<std::string> groups;
  for (const Fields::Group& group : fields.groups()) groups.push_back(group.name);
  std::vector<std::string> candidates = groups;
  candidates.emplace_back("all");
  for (const Fields::Field& field : fields.all()) candidates.push_back(field.key);
  const std::string near = nearest(name, candidates);
  throw Error(
      Errc::usage,
      fmt::format("--help: unknown group {}{}; the groups are {} and all", quotation(name, max_quoted_bytes, '\''),
                  near.empty() ? "" : fmt::format(" (did you mean '{}'?)", near), fmt::join(groups, ", ")));
}

}  // namespace headstart
