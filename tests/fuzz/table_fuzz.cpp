// A CSV file. Promised: it is refused, or each row has a cell for each column, and the table that is written down again
// with every cell in quotation marks is the same. What it says of itself encodes it: as many numbers as there are
// features, NaN only where a value is missing, each label a class; and a schema is read as it was written.
#include <cmath>

#include <ATen/core/Tensor.h>
#include <nlohmann/json.hpp>

#include "shared/base/files.hpp"
#include "shared/learn/data/table.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace headstart;

std::string in_quotation_marks(std::string_view cell) {
  std::string text = "\"";
  for (const char c : cell) text += c == '"' ? std::string("\"\"") : std::string(1, c);
  return text + '"';
}

std::string written(const learn::Table& table) {
  std::string text;
  for (std::size_t i = 0; i < table.header.size(); ++i) {
    text += (i > 0 ? "," : "") + in_quotation_marks(table.header[i]);
  }
  for (std::int64_t row = 0; row < table.num_rows(); ++row) {
    text += "\r\n";
    for (std::size_t i = 0; i < table.header.size(); ++i) {
      text += (i > 0 ? "," : "") + in_quotation_marks(table.cell(row, i));
    }
  }
  return text;
}

void check_encoding(const learn::Table& table, learn::MissingValues missing) {
  learn::ColumnChoice choice{.label = table.header.back(), .columns = {}, .drop = {}, .categorical = {}};
  if (table.header.size() > 2) choice.categorical = {table.header.front()};
  learn::TableSchema schema = learn::schema_of({&table}, choice);
  schema.terms.missing = missing;
  learn::require_sound(schema.terms);
  const learn::EncodedRows rows = learn::encoded(table, schema.terms, schema.classes, {});
  const auto features = learn::table_features(schema.terms);
  fuzz::require(rows.samples.size(0) == table.num_rows() && rows.labels.size(0) == table.num_rows() &&
                    rows.samples.size(1) == static_cast<std::int64_t>(features.size()),
                "a sample has a number for each feature, and a label");
  const auto values = rows.samples.accessor<float, 2>();
  for (std::int64_t i = 0; i < table.num_rows(); ++i) {
    for (std::int64_t f = 0; f < values.size(1); ++f) {
      fuzz::require(!std::isinf(values[i][f]), "a number is finite");
      const bool may_miss = missing != learn::MissingValues::refuse;
      fuzz::require(may_miss || !std::isnan(values[i][f]), "a value that is refused is not filled");
    }
    const auto label = rows.labels.data_ptr<std::int64_t>()[i];
    fuzz::require(label >= 0 && label < std::ssize(schema.classes), "a label is a class");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto missing = static_cast<learn::MissingValues>(data[0] % 4);
  const std::string_view text = fuzz::text_of(data, size).substr(1);
  fuzz::is_refused([&] {
    const learn::Table table = learn::parse_table(text, "t.csv");
    fuzz::require(table.num_rows() > 0 && table.header.size() > 1 &&
                      table.ends.size() == table.lines.size() * table.header.size() &&
                      table.ends.back() == table.text.size(),
                  "each row has a cell for each column");
    const learn::Table again = learn::parse_table(written(table), "t.csv");
    fuzz::require(again.header == table.header && again.text == table.text && again.ends == table.ends,
                  "a table written down again is the same");
    check_encoding(table, missing);
  });
  return 0;
}
