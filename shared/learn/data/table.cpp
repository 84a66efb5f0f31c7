#include "shared/learn/data/table.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/base/names.hpp"
#include "shared/base/printable.hpp"
#include "shared/learn/core/task.hpp"

namespace headstart::learn {

namespace {

constexpr std::size_t most_name_bytes = 256;

std::string in_quotes(std::string_view text) { return quotation(text); }

bool is_utf8(const std::string& text) {
  try {
    (void)nlohmann::json(text).dump();
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

[[noreturn]] void refuse(const std::string& what) { throw Error(Errc::data, what); }

void require_name(const std::string& name, std::string_view what) {
  if (name.empty()) refuse(fmt::format("{} is empty", what));
  if (name.size() > most_name_bytes) refuse(fmt::format("{} has more than {} bytes", what, most_name_bytes));
  if (!is_utf8(name)) refuse(fmt::format("{}, {}, is not UTF-8", what, in_quotes(name)));
}

bool is_blank(char c) { return c == ' ' || c == '\t'; }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

std::string list_of(const std::vector<std::string>& names) {
  constexpr std::size_t most = 8;
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), most); ++i) text += (i > 0 ? ", " : "") + in_quotes(names[i]);
  return names.size() > most ? fmt::format("{}, ... ({} in all)", text, names.size()) : text;
}

/// Cuts a text into cells.
class CsvReader {
 public:
  CsvReader(std::string_view text, std::string file) : text_(text) {
    table_.file = std::move(file);
    constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
    if (text_.starts_with(byte_order_mark)) text_.remove_prefix(byte_order_mark.size());
  }

  Table read() {
    read_header();
    while (at_ < text_.size()) {
      if (skip_empty_line()) continue;
      const std::int64_t first_line = line_;
      const std::size_t num_cells = read_row();
      if (num_cells != table_.header.size()) {
        fail(first_line, fmt::format("expected {} cells, as the header has, got {}", table_.header.size(), num_cells));
      }
      table_.lines.push_back(first_line);
    }
    if (table_.lines.empty()) fail(line_, "there are no rows after the header");
    return std::move(table_);
  }

 private:
  [[noreturn]] void fail(std::int64_t line, const std::string& what) const {
    refuse(fmt::format("{}, line {}: {}", table_.file, line, what));
  }

  void read_header() {
    while (at_ < text_.size() && skip_empty_line()) {
    }
    const std::int64_t line = line_;
    if (at_ == text_.size()) fail(line, "expected a header with the names of the columns, got nothing");
    const std::size_t count = read_row();
    std::uint64_t begin = 0;
    for (const std::uint64_t end : table_.ends) {
      table_.header.push_back(table_.text.substr(begin, end - begin));
      begin = end;
    }
    table_.text.clear();
    table_.ends.clear();
    std::set<std::string> seen;
    for (std::size_t i = 0; i < count; ++i) {
      const std::string& name = table_.header[i];
      if (name.empty()) {
        fail(line, fmt::format("column {} has no name; pandas writes its index so unless told index=False", i + 1));
      }
      if (!seen.insert(name).second) fail(line, fmt::format("two columns are named {}", in_quotes(name)));
    }
    if (count < 2) {
      fail(line, fmt::format("expected a label and a feature at least, separated by commas, got one column, {}",
                             in_quotes(table_.header.front())));
    }
  }

  bool skip_empty_line() {
    const std::size_t end = text_[at_] == '\r' ? at_ + 1 : at_;
    if (end >= text_.size() || text_[end] != '\n') return false;
    at_ = end + 1;
    ++line_;
    return true;
  }

  /// Returns the number of its cells.
  std::size_t read_row() {
    std::size_t count = 0;
    while (true) {
      read_cell();
      ++count;
      if (at_ == text_.size()) return count;
      if (text_[at_] == ',') {
        ++at_;
        continue;
      }
      // read_cell() stops at a comma, at the end of a line, or at that of the text.
      at_ += text_[at_] == '\r' ? 2 : 1;
      ++line_;
      return count;
    }
  }

  void read_cell() {
    std::size_t begin = at_;
    while (begin < text_.size() && is_blank(text_[begin])) ++begin;
    if (begin < text_.size() && text_[begin] == '"') {
      at_ = begin + 1;
      read_quoted_cell();
    } else {
      read_plain_cell();
    }
    table_.ends.push_back(table_.text.size());
  }

  void read_plain_cell() {
    const std::size_t begin = at_;
    while (at_ < text_.size() && !is_at_end_of_cell()) {
      if (text_[at_] == '"') fail(line_, "a quotation mark within a cell that does not begin with one");
      require_text();
      ++at_;
    }
    table_.text += trimmed(text_.substr(begin, at_ - begin));
  }

  void read_quoted_cell() {
    const std::int64_t first_line = line_;
    while (true) {
      if (at_ == text_.size()) fail(first_line, "a quotation mark opens a cell, and none closes it");
      const char c = text_[at_];
      if (c == '"') {
        if (at_ + 1 < text_.size() && text_[at_ + 1] == '"') {
          table_.text += '"';
          at_ += 2;
          continue;
        }
        ++at_;
        break;
      }
      if (c == '\0') require_text();
      if (c == '\n') ++line_;
      table_.text += c;
      ++at_;
    }
    while (at_ < text_.size() && is_blank(text_[at_])) ++at_;
    if (at_ < text_.size() && !is_at_end_of_cell()) fail(line_, "text after the quotation mark that closes a cell");
  }

  [[nodiscard]] bool is_at_end_of_cell() const {
    const char c = text_[at_];
    return c == ',' || c == '\n' || (c == '\r' && at_ + 1 < text_.size() && text_[at_ + 1] == '\n');
  }

  void require_text() const {
    if (text_[at_] == '\r') fail(line_, "a carriage return without a line feed: end lines with LF or CRLF");
    if (text_[at_] == '\0') fail(line_, "a zero byte: expected text in UTF-8");
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::int64_t line_ = 1;
  Table table_;
};

/// What a cell stands for, where it is a number.
std::optional<float> number_in(std::string_view cell) {
  std::string_view text = trimmed(cell);
  if (text.starts_with('+') && text.size() > 1 && text[1] != '-') text.remove_prefix(1);
  double value = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
  if (read.ec != std::errc() || read.ptr != text.data() + text.size()) return std::nullopt;
  const auto narrow = static_cast<float>(value);
  return std::isfinite(narrow) ? std::optional(narrow) : std::nullopt;
}

/// "FILE, line 3, column "age"".
std::string place(const Table& table, std::int64_t row, std::string_view column) {
  return fmt::format("{}, line {}, column {}", table.file, table.lines[static_cast<std::size_t>(row)],
                     in_quotes(column));
}

std::string in_lower_case(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return text;
}

std::string near_words(const std::string& name, const std::vector<std::string>& names) {
  const auto in_other_case = std::ranges::find(names, in_lower_case(name), in_lower_case);
  const std::string near = in_other_case != names.end() ? *in_other_case : nearest(name, names);
  return near.empty() ? "" : fmt::format(" (did you mean {}?)", in_quotes(near));
}

/// One column's cells as features.
class ColumnEncoder {
 public:
  ColumnEncoder(const Table& table, const TableColumn& column, MissingValues missing)
      : table_(table), column_(column), missing_(missing), place_(table.place_of(column.name, "the run's")) {
    for (std::size_t i = 0; i < column.categories.size(); ++i) categories_.emplace(column.categories[i], i);
  }

  [[nodiscard]] std::size_t num_features() const {
    return std::max<std::size_t>(1, column_.categories.size()) + (missing_ == MissingValues::indicator ? 1 : 0);
  }

  void write(std::int64_t row, float* features) const {
    const std::string_view cell = table_.cell(row, place_);
    const std::size_t num_values = std::max<std::size_t>(1, column_.categories.size());
    const auto category = categories_.find(cell);
    const bool has_value = category != categories_.end() || !is_missing(cell);
    if (missing_ == MissingValues::indicator) features[num_values] = has_value ? 0.0F : 1.0F;
    if (!has_value) {
      if (missing_ == MissingValues::refuse) refuse_missing(row);
      std::fill_n(features, num_values, std::numeric_limits<float>::quiet_NaN());
      return;
    }
    if (column_.categories.empty()) {
      const auto number = number_in(cell);
      if (!number)
        refuse(fmt::format("{}: expected a number, got {}", place(table_, row, column_.name), in_quotes(cell)));
      features[0] = *number;
      return;
    }
    if (category == categories_.end()) {
      refuse(fmt::format("{}: expected one of {}, got {}", place(table_, row, column_.name),
                         list_of(column_.categories), in_quotes(cell)));
    }
    features[category->second] = 1;
  }

 private:
  [[noreturn]] void refuse_missing(std::int64_t row) const {
    refuse(
        fmt::format("{}: expected a value, got {}, and the run refuses missing values: fill it or leave the row "
                    "out, or the coordinator sets data.missing",
                    place(table_, row, column_.name), in_quotes(table_.cell(row, place_))));
  }

  const Table& table_;
  const TableColumn& column_;
  MissingValues missing_;
  std::size_t place_;
  std::map<std::string, std::size_t, std::less<>> categories_;
};

/// The values of a column in all tables, but for missing ones, in the order of their bytes.
std::set<std::string> values_of(const std::vector<const Table*>& tables, const std::string& column) {
  std::set<std::string> values;
  for (const Table* table : tables) {
    const std::size_t at = table->place_of(column, "the");
    for (std::int64_t row = 0; row < table->num_rows(); ++row) {
      const std::string_view cell = table->cell(row, at);
      if (!is_missing(cell)) values.emplace(cell);
    }
  }
  return values;
}

std::optional<std::int64_t> whole_number(const std::string& text) {
  std::int64_t value = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool is_whole = read.ec == std::errc() && read.ptr == text.data() + text.size();
  return is_whole ? std::optional(value) : std::nullopt;
}

std::vector<std::string> classes_among(const std::set<std::string>& values) {
  std::vector<std::string> classes(values.begin(), values.end());
  const bool are_numbers =
      std::ranges::all_of(classes, [](const auto& name) { return whole_number(name).has_value(); });
  // "1" and "01" are two names of one number.
  const auto place = [](const std::string& name) { return std::pair(*whole_number(name), name); };
  if (are_numbers) std::ranges::sort(classes, {}, place);
  return classes;
}

std::vector<std::string> texts_of(const nlohmann::json& list, const std::string& where) {
  const bool is_sound =
      list.is_array() && std::ranges::all_of(list, [](const nlohmann::json& entry) { return entry.is_string(); });
  if (!is_sound) refuse(fmt::format("{}: expected a list of texts", where));
  return list.get<std::vector<std::string>>();
}

const nlohmann::json& part_of(const nlohmann::json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end()) refuse(fmt::format("{}: '{}' is missing", where, key));
  return *found;
}

void refuse_other_keys(const nlohmann::json& object, std::initializer_list<std::string_view> known,
                       const std::string& where) {
  if (!object.is_object()) refuse(fmt::format("{}: expected an object", where));
  for (const auto& [key, value] : object.items()) {
    if (std::ranges::find(known, key) == known.end()) {
      refuse(fmt::format("{}: unknown key {}; there are {}", where, in_quotes(key), fmt::join(known, ", ")));
    }
  }
}

}  // namespace

void TableTerms::add(const TableColumn& column) {
  columns.push_back(column.name);
  num_categories.push_back(std::ssize(column.categories));
  categories.insert(categories.end(), column.categories.begin(), column.categories.end());
}

std::vector<TableColumn> TableTerms::list() const {
  std::vector<TableColumn> list;
  auto next = categories.begin();
  for (std::size_t i = 0; i < columns.size(); ++i) {
    list.push_back({columns[i], {next, next + num_categories[i]}});
    next += num_categories[i];
  }
  return list;
}

void declare_fields(Fields& fields, const std::string& prefix, TableTerms& terms) {
  fields.text(prefix + ".label", terms.label, "Name of the column with the classes.");
  fields.texts(prefix + ".columns", terms.columns, "Names of the columns, in the order of the features.");
  fields.integers(prefix + ".num_categories", terms.num_categories, "Of each column; 0: it is a number.",
                  {0, static_cast<double>(max_extent)});
  fields.texts(prefix + ".categories", terms.categories, "Of all columns, one column behind the other.");
  fields.choice(prefix + ".missing", terms.missing, "What becomes of missing values.",
                Choices<MissingValues>(missing_words));
}

void require_sound(const TableTerms& terms) {
  std::int64_t total = 0;
  for (const std::int64_t count : terms.num_categories) total += count;
  if (terms.num_categories.size() != terms.columns.size() || total != std::ssize(terms.categories)) {
    refuse(fmt::format("{} columns have {} numbers of categories, which are {} in all, not {}", terms.columns.size(),
                       terms.num_categories.size(), terms.categories.size(), total));
  }
  if (terms.is_empty()) {
    if (!terms.label.empty()) refuse("a table of no columns has a label");
    return;
  }
  require_name(terms.label, "the name of the label column");
  std::set<std::string> seen{terms.label};
  for (const TableColumn& column : terms.list()) {
    require_name(column.name, "the name of a column");
    if (!seen.insert(column.name).second) refuse(fmt::format("two columns are named {}", in_quotes(column.name)));
    std::set<std::string> categories;
    for (const std::string& category : column.categories) {
      require_name(category, fmt::format("a category of column {}", in_quotes(column.name)));
      if (categories.insert(category).second) continue;
      refuse(fmt::format("column {} has the category {} twice", in_quotes(column.name), in_quotes(category)));
    }
  }
  const std::size_t num_features = table_features(terms).size();
  if (std::cmp_greater(num_features, max_extent)) {
    refuse(fmt::format("the columns make {} features; a sample has {} at most", num_features, max_extent));
  }
}

std::vector<TableFeature> table_features(const TableTerms& terms) {
  std::vector<TableFeature> features;
  for (const TableColumn& column : terms.list()) {
    if (column.categories.empty()) features.push_back({column.name, true});
    for (const std::string& category : column.categories) features.push_back({column.name + "=" + category, false});
    if (terms.missing == MissingValues::indicator) features.push_back({column.name + " is missing", false});
  }
  return features;
}

nlohmann::json json_of(const TableSchema& schema) {
  nlohmann::json columns = nlohmann::json::array();
  for (const TableColumn& column : schema.terms.list()) {
    nlohmann::json entry = {{"name", column.name}};
    if (!column.categories.empty()) entry["categories"] = column.categories;
    columns.push_back(std::move(entry));
  }
  return {{"label", schema.terms.label}, {"classes", schema.classes}, {"columns", std::move(columns)}};
}

TableSchema read_schema(const std::filesystem::path& file) {
  const std::string name = file.string();
  const nlohmann::json document = read_json(file);
  refuse_other_keys(document, {"label", "classes", "columns"}, name);
  TableSchema schema;
  const nlohmann::json& label = part_of(document, "label", name);
  if (!label.is_string()) refuse(fmt::format("{}, label: expected a text", name));
  schema.terms.label = label.get<std::string>();
  schema.classes = texts_of(part_of(document, "classes", name), name + ", classes");
  const nlohmann::json& columns = part_of(document, "columns", name);
  if (!columns.is_array() || columns.empty()) refuse(fmt::format("{}, columns: expected a list of columns", name));
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const std::string where = fmt::format("{}, columns[{}]", name, i);
    refuse_other_keys(columns[i], {"name", "categories"}, where);
    const nlohmann::json& column = part_of(columns[i], "name", where);
    if (!column.is_string()) refuse(fmt::format("{}, name: expected a text", where));
    TableColumn entry{column.get<std::string>(), {}};
    if (columns[i].contains("categories")) {
      entry.categories = texts_of(columns[i]["categories"], where + ", categories");
      if (entry.categories.empty()) refuse(fmt::format("{}, categories: expected one at least", where));
    }
    schema.terms.add(entry);
  }
  try {
    require_sound(schema.terms);
  } catch (const Error& error) {
    refuse(fmt::format("{}: {}", name, error.what()));
  }
  return schema;
}

std::string_view Table::cell(std::int64_t row, std::size_t column) const {
  const std::size_t place = static_cast<std::size_t>(row) * header.size() + column;
  const std::uint64_t begin = place == 0 ? 0 : ends[place - 1];
  return std::string_view(text).substr(begin, ends[place] - begin);
}

std::size_t Table::place_of(const std::string& column, std::string_view whose) const {
  const auto found = std::ranges::find(header, column);
  if (found != header.end()) return static_cast<std::size_t>(found - header.begin());
  refuse(fmt::format("{}, line 1: expected {} column {}, got {}{}", file, whose, in_quotes(column), list_of(header),
                     near_words(column, header)));
}

Table parse_table(std::string_view text, std::string file) { return CsvReader(text, std::move(file)).read(); }

bool is_missing(std::string_view cell) {
  return cell.empty() || cell == "NA" || cell == "NaN" || cell == "nan" || cell == "?";
}

TableSchema schema_of(const std::vector<const Table*>& tables, const ColumnChoice& choice) {
  const Table& first = *tables.front();
  (void)first.place_of(choice.label, "the label's (data.label)");
  const auto is_among = [](const std::vector<std::string>& names, const std::string& name) {
    return std::ranges::find(names, name) != names.end();
  };
  std::vector<std::string> names = choice.columns;
  if (names.empty()) {
    std::ranges::copy_if(first.header, std::back_inserter(names),
                         [&](const std::string& name) { return name != choice.label && !is_among(choice.drop, name); });
  }
  TableSchema schema;
  schema.terms.label = choice.label;
  for (const std::string& name : names) {
    (void)first.place_of(name, "the (data.columns)");
    TableColumn column{name, {}};
    if (is_among(choice.categorical, name)) {
      const std::set<std::string> values = values_of(tables, name);
      column.categories.assign(values.begin(), values.end());
      if (values.empty())
        refuse(fmt::format("{}: column {} has no category, as no cell has a value", first.file, in_quotes(name)));
    }
    schema.terms.add(column);
  }
  for (const std::string& name : choice.categorical) {
    if (!is_among(names, name)) {
      throw Error(Errc::usage, fmt::format("data.categorical: {} is not among the columns that are used, {}{}",
                                           in_quotes(name), list_of(names), near_words(name, names)));
    }
  }
  if (schema.terms.is_empty()) refuse(fmt::format("{}: no column is left beside the label", first.file));
  schema.classes = classes_among(values_of(tables, choice.label));
  if (std::ssize(schema.classes) > max_classes) {
    refuse(fmt::format("{}: the label column {} has {} different values; a label names one of {} classes at most",
                       first.file, in_quotes(choice.label), schema.classes.size(), max_classes));
  }
  try {
    require_sound(schema.terms);
  } catch (const Error& error) {
    refuse(fmt::format("{}: {}", first.file, error.what()));
  }
  return schema;
}

EncodedRows encoded(const Table& table, const TableTerms& terms, const std::vector<std::string>& classes,
                    const Tensor& rows) {
  const std::vector<TableColumn> columns = terms.list();
  std::vector<ColumnEncoder> encoders;
  std::size_t num_features = 0;
  for (const TableColumn& column : columns) {
    encoders.emplace_back(table, column, terms.missing);
    num_features += encoders.back().num_features();
  }
  std::map<std::string, std::int64_t, std::less<>> numbers;
  for (std::size_t label = 0; label < classes.size(); ++label) {
    numbers.emplace(classes[label], static_cast<std::int64_t>(label));
  }
  const std::size_t label_column = table.place_of(terms.label, "the label's");
  const Tensor chosen = rows.defined() ? rows : torch::arange(table.num_rows(), torch::kLong);
  EncodedRows result{torch::zeros({chosen.size(0), static_cast<std::int64_t>(num_features)}, torch::kFloat),
                     torch::empty({chosen.size(0)}, torch::kLong)};
  const auto row_of = chosen.accessor<std::int64_t, 1>();
  auto* features = result.samples.data_ptr<float>();
  auto* labels = result.labels.data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < chosen.size(0); ++i) {
    const std::int64_t row = row_of[i];
    for (const ColumnEncoder& encoder : encoders) {
      encoder.write(row, features);
      features += encoder.num_features();
    }
    const std::string_view name = table.cell(row, label_column);
    const auto number = numbers.find(name);
    if (number == numbers.end()) {
      refuse(fmt::format("{}: expected a class, {}, got {}", place(table, row, terms.label), list_of(classes),
                         in_quotes(name)));
    }
    labels[i] = number->second;
  }
  return result;
}

std::vector<std::string> unused_columns(const Table& table, const TableTerms& terms) {
  std::vector<std::string> unused;
  std::ranges::copy_if(table.header, std::back_inserter(unused), [&terms](const std::string& name) {
    return name != terms.label && std::ranges::find(terms.columns, name) == terms.columns.end();
  });
  return unused;
}

}  // namespace headstart::learn
