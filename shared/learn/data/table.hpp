// Tables: what a CSV file holds, and how its columns become the inputs of a model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "shared/base/fields.hpp"
#include "shared/learn/core/tensor.hpp"

namespace headstart::learn {

/// What becomes of a cell without a value: empty, NA, NaN, nan or ?.
enum class MissingValues {
  refuse,     ///< The file is refused, with line and column.
  mean,       ///< A number is the run's mean, which is 0 after normalisation; of a category none is 1.
  zero,       ///< A number is 0 before normalisation; of a category none is 1.
  indicator,  ///< As mean, and each column has one more feature, which is 1 where the value is missing.
};
inline constexpr std::pair<MissingValues, std::string_view> missing_words[] = {{MissingValues::refuse, "refuse"},
                                                                               {MissingValues::mean, "mean"},
                                                                               {MissingValues::zero, "zero"},
                                                                               {MissingValues::indicator, "indicator"}};

struct TableColumn {
  std::string name;
  std::vector<std::string> categories;  ///< Each is a feature of 0 or 1; empty: a number, one feature.
  friend bool operator==(const TableColumn&, const TableColumn&) = default;
};

/// How rows become samples, the same at all silos of a run. Flat, as declared fields are.
struct TableTerms {
  std::string label;                 ///< Name of the column with the names of classes.
  std::vector<std::string> columns;  ///< The others that are used, in the order of the features; empty: no table.
  std::vector<std::int64_t> num_categories;  ///< Of each column; 0: a number.
  std::vector<std::string> categories;       ///< Of all columns, one column behind the other.
  MissingValues missing = MissingValues::refuse;

  [[nodiscard]] bool is_empty() const { return columns.empty(); }
  void add(const TableColumn& column);
  [[nodiscard]] std::vector<TableColumn> list() const;
  friend bool operator==(const TableTerms&, const TableTerms&) = default;
};
/// "samples.table.columns", ... under `prefix`.
void declare_fields(Fields& fields, const std::string& prefix, TableTerms& terms);
/// Throws Error(data), naming the column: lists of different lengths, a name or category that is empty, twice there,
/// longer than 256 bytes or no UTF-8, more features than a sample may have.
void require_sound(const TableTerms& terms);

/// One feature of a sample.
struct TableFeature {
  std::string name;        ///< "age", "colour=red", "age is missing".
  bool is_number = false;  ///< Not a 0 or 1 of a category or of a missing value: these are not normalised.
};
/// In order.
std::vector<TableFeature> table_features(const TableTerms& terms);

/// Columns and classes as a file has them: {"label": ..., "classes": [...], "columns": [{"name": ...}, {"name": ...,
/// "categories": [...]}]}.
struct TableSchema {
  TableTerms terms;  ///< `missing` is not of it.
  std::vector<std::string> classes;
};
nlohmann::json json_of(const TableSchema& schema);
/// Throws Error(data), naming file and key.
TableSchema read_schema(const std::filesystem::path& file);

/// The cells of a CSV file, as text.
struct Table {
  std::string file;
  std::string schema_file;  ///< That says how this silo's own people read it; empty: none.
  std::vector<std::string> header;
  std::vector<std::int64_t> lines;  ///< On which each row begins, from 1.
  std::string text;                 ///< Of all cells, row by row.
  std::vector<std::uint64_t> ends;  ///< In `text`, of each cell.

  [[nodiscard]] std::int64_t num_rows() const { return static_cast<std::int64_t>(lines.size()); }
  [[nodiscard]] std::string_view cell(std::int64_t row, std::size_t column) const;
  /// Throws Error(data): no such column, with those that there are. `whose`: who wants it ("the run's").
  [[nodiscard]] std::size_t place_of(const std::string& column, std::string_view whose) const;
};

/// CSV as RFC 4180 has it: commas, quotation marks around cells with commas, quotation marks (doubled) or line breaks;
/// lines end with LF or CRLF; the first one is the header. A byte order mark, empty lines, and blanks around a cell
/// without quotation marks are dropped. `file` is for messages. Throws Error(data) with the line: a row of another
/// length than the header, a stray quotation mark or carriage return, a zero byte, a column without a name or of a name
/// that is there already, fewer than two columns, no rows.
Table parse_table(std::string_view text, std::string file);

/// Whether a cell has no value.
bool is_missing(std::string_view cell);

/// Which columns of a table are used, where no schema says it.
struct ColumnChoice {
  std::string label;
  std::vector<std::string> columns;      ///< Empty: all but `label` and `drop`.
  std::vector<std::string> drop;         ///< Need not be there.
  std::vector<std::string> categorical;  ///< The others are numbers.
};
/// What `tables`, one at least and of the same file form, say by themselves: categories are their values in the order
/// of the bytes, classes the values of the label column, in the order of numbers where all are whole numbers. Columns
/// are in the order of the first table. Throws Error(data | usage), naming the column.
TableSchema schema_of(const std::vector<const Table*>& tables, const ColumnChoice& choice);

/// Rows as numbers: float32 [n, F], where a missing value is NaN, and int64 [n], each label's place in `classes`.
struct EncodedRows {
  Tensor samples, labels;
};
/// Of the rows at `rows`, int64 [n]; undefined: of all. Throws Error(data) naming file, line and column: a column that
/// is not there, no value where these are refused or of a label, text in a number, a number that float32 cannot hold, a
/// category or class that is not the run's.
EncodedRows encoded(const Table& table, const TableTerms& terms, const std::vector<std::string>& classes,
                    const Tensor& rows);

/// Columns of the table that the terms do not name.
std::vector<std::string> unused_columns(const Table& table, const TableTerms& terms);

}  // namespace headstart::learn
