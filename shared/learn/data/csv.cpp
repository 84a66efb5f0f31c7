// The data set csv: rows of tables.
#include <memory>

#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/data/reader.hpp"

namespace headstart::learn {

namespace {

std::filesystem::path file_of(const std::filesystem::path& folder, Split split) {
  return folder / (split == Split::train ? "train.csv" : "test.csv");
}

std::shared_ptr<Table> read_table(const std::filesystem::path& file) {
  return std::make_shared<Table>(parse_table(read_text(file), file.string()));
}

std::optional<TableSchema> schema_for(const std::filesystem::path& folder, const DataSource& source, Split split,
                                      const Table& table) {
  if (!source.schema.empty()) return read_schema(source.schema);
  if (source.columns.label.empty()) return std::nullopt;
  std::vector<const Table*> tables = {&table};
  const std::filesystem::path other_file = file_of(folder, split == Split::train ? Split::test : Split::train);
  std::shared_ptr<Table> other;
  if (is_there(other_file, Errc::data)) {
    other = read_table(other_file);
    // The training split's columns give the order, whichever split is loaded.
    tables.insert(split == Split::train ? tables.end() : tables.begin(), other.get());
  }
  return schema_of(tables, source.columns);
}

Dataset load_csv(const DataReader& reader, const std::filesystem::path& folder, const DataSource& source, Split split) {
  const std::shared_ptr<Table> table = read_table(file_of(folder, split));
  table->schema_file = source.schema;
  const auto schema = schema_for(folder, source, split, *table);
  const std::int64_t num_rows = table->num_rows();
  Dataset dataset = reader.dataset(torch::zeros({num_rows, 1}), torch::zeros({num_rows}, torch::kLong));
  if (schema) {
    dataset.columns = schema->terms;
    dataset.columns.missing = source.missing;
    dataset.classes = schema->classes;
    EncodedRows rows = encoded(*table, dataset.columns, dataset.classes, {});
    dataset.images = std::move(rows.samples);
    dataset.labels = std::move(rows.labels);
  }
  dataset.num_classes = std::ssize(dataset.classes);
  dataset.class_source = ClassSource::folders;
  dataset.table = table;
  return dataset;
}

/// What a schema alone says.
std::optional<Dataset> told_by_schema(const DataReader& reader, const DataSource& source) {
  if (source.schema.empty()) return std::nullopt;
  const TableSchema schema = read_schema(source.schema);
  Dataset dataset = reader.dataset({}, torch::empty({0}, torch::kLong));
  dataset.columns = schema.terms;
  dataset.columns.missing = source.missing;
  dataset.images = torch::empty({0, std::ssize(table_features(dataset.columns))});
  dataset.classes = schema.classes;
  dataset.num_classes = std::ssize(schema.classes);
  return dataset;
}

}  // namespace

constinit const DataReader csv_reader{.name = "csv",
                                      .sentence = "tables with a header, of numbers and categories",
                                      .files = "train.csv and test.csv",
                                      .load = load_csv,
                                      .told = told_by_schema};

}  // namespace headstart::learn
