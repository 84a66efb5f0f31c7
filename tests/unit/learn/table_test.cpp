#include "shared/learn/data/table.hpp"

#include <cmath>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/data/reader.hpp"
#include "shared/learn/data/sample_figures.hpp"
#include "shared/learn/data/sample_terms.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart::learn {

namespace {

using test::error_of;

std::vector<std::string> row_of(const Table& table, std::int64_t row) {
  std::vector<std::string> cells;
  for (std::size_t column = 0; column < table.header.size(); ++column) cells.emplace_back(table.cell(row, column));
  return cells;
}

using Row = std::vector<std::string>;

std::string refusal_of(std::string_view text) {
  return error_of(Errc::data, [&] { (void)parse_table(text, "t.csv"); });
}

TableTerms people(MissingValues missing = MissingValues::refuse) {
  TableTerms terms{.label = "sick"};
  terms.add({"age", {}});
  terms.add({"sex", {"f", "m"}});
  terms.add({"height", {}});
  terms.missing = missing;
  return terms;
}

EncodedRows rows_of(std::string_view text, const TableTerms& terms) {
  return encoded(parse_table(text, "silo.csv"), terms, {"no", "yes"}, {});
}

std::string refusal_of_rows(std::string_view text, MissingValues missing = MissingValues::refuse) {
  return error_of(Errc::data, [&] { (void)rows_of(text, people(missing)); });
}

class Folder {
 public:
  Folder& write(const std::string& name, const std::string& text) {
    write_text_atomically(folder_ / name, text);
    return *this;
  }
  [[nodiscard]] DataSource source() const { return {.set = "csv", .path = folder_.path().string()}; }
  [[nodiscard]] std::string path(const std::string& name) const { return (folder_ / name).string(); }

 private:
  test::TemporaryFolder folder_;
};

}  // namespace

TEST_CASE("table: cells as RFC 4180 has them, with either end of line and a byte order mark") {
  const Table table = parse_table(
      "\xef\xbb\xbf"
      "a, \"b \"\"x\"\"\" ,c\r\n1,\" two,\r\n 2 \",\r\n\r\n  3\t ,\"\",\"4\"\n\n5,6,7",
      "t.csv");
  CHECK(table.header == Row{"a", "b \"x\"", "c"});
  REQUIRE(table.num_rows() == 3);
  CHECK(row_of(table, 0) == Row{"1", " two,\r\n 2 ", ""});
  CHECK(row_of(table, 1) == Row{"3", "", "4"});
  CHECK(row_of(table, 2) == Row{"5", "6", "7"});
  CHECK(table.lines == std::vector<std::int64_t>{2, 5, 7});
  CHECK(row_of(parse_table("a,b\n1,", "t.csv"), 0) == Row{"1", ""});
}

TEST_CASE("table: what is no such file is refused with its line") {
  CHECK(refusal_of("") == "t.csv, line 1: expected a header with the names of the columns, got nothing");
  CHECK(refusal_of("\n\n").starts_with("t.csv, line 3: expected a header"));
  CHECK(refusal_of("a,b\n") == "t.csv, line 2: there are no rows after the header");
  CHECK(refusal_of("a,b\n1,2\n3\n") == "t.csv, line 3: expected 2 cells, as the header has, got 1");
  CHECK(refusal_of("a,b\n1,2\n\"3\n3\",4,5\n") == "t.csv, line 3: expected 2 cells, as the header has, got 3");
  CHECK(refusal_of("a;b\n1;2\n").find("got one column, \"a;b\"") != std::string::npos);
  CHECK(refusal_of("a,b,a\n1,2,3\n") == "t.csv, line 1: two columns are named \"a\"");
  CHECK(refusal_of(",a\n0,1\n").find("line 1: column 1 has no name; pandas") != std::string::npos);
  CHECK(refusal_of("a,b\n1,x\"y\n").find("line 2: a quotation mark within a cell") != std::string::npos);
  CHECK(refusal_of("a,b\n1,\"x\"y\n").find("line 2: text after the quotation mark") != std::string::npos);
  CHECK(refusal_of("a,b\n1,\"x\n\n").find("line 2: a quotation mark opens a cell") != std::string::npos);
  CHECK(refusal_of("a,b\r1,2\r").find("line 1: a carriage return without") != std::string::npos);
  CHECK(refusal_of(std::string_view("a,b\n1,\0\n", 8)).find("line 2: a zero byte") != std::string::npos);
  CHECK(refusal_of(std::string_view("a,b\n1,\"\0\"\n", 10)).find("line 2: a zero byte") != std::string::npos);
}

TEST_CASE("table: columns by name in the terms' order, categories as ones, labels by class") {
  const EncodedRows rows = rows_of("id,height,sick,sex,age\n7,1.5,yes,m,40\n8,-2e0,no,f,+3.25\n", people());
  CHECK(rows.samples.equal(torch::tensor({{40.0F, 0.0F, 1.0F, 1.5F}, {3.25F, 1.0F, 0.0F, -2.0F}})));
  CHECK(rows.labels.equal(torch::tensor({1, 0}, torch::kLong)));
  CHECK(unused_columns(parse_table("id,height,sick,sex,age\n7,1.5,yes,m,40\n", "t"), people()) == Row{"id"});
  const Table table = parse_table("age,sex,height,sick\n1,f,1,no\n2,f,1,no\n3,m,1,yes\n", "t");
  const EncodedRows some = encoded(table, people(), {"no", "yes"}, torch::tensor({2, 0}, torch::kLong));
  CHECK(some.samples.select(1, 0).equal(torch::tensor({3.0F, 1.0F})));
  CHECK(some.labels.equal(torch::tensor({1, 0}, torch::kLong)));
}

TEST_CASE(
    "table: a silo's file that is not the run's is refused with line, column, what was expected and what is there") {
  CHECK(refusal_of_rows("Age,sex,height,sick\n1,f,1,no\n") ==
        "silo.csv, line 1: expected the run's column \"age\", got \"Age\", \"sex\", \"height\", \"sick\" (did you mean "
        "\"Age\"?)");
  CHECK(refusal_of_rows("ages,AGE,sex,height,sick\n1,1,f,1,no\n").ends_with("(did you mean \"AGE\"?)"));
  CHECK(refusal_of_rows("age,sex,height\n1,f,1\n").find("expected the label's column \"sick\"") != std::string::npos);
  const std::string header = "age,sex,height,sick\n1,f,1,no\n";
  CHECK(refusal_of_rows(header + "1,x,1,no\n") ==
        "silo.csv, line 3, column \"sex\": expected one of \"f\", \"m\", got \"x\"");
  CHECK(refusal_of_rows(header + "1 y,f,1,no\n") == "silo.csv, line 3, column \"age\": expected a number, got \"1 y\"");
  for (const char* number : {"1e39", "inf", "-inf", "0x10", "1,5", "1e", "+-1", "--1"}) {
    CAPTURE(number);
    CHECK(refusal_of_rows(fmt::format("{}\"{}\",f,1,no\n", header, number)).find("expected a number") !=
          std::string::npos);
  }
  CHECK(refusal_of_rows(header + "1,f,1,maybe\n") ==
        "silo.csv, line 3, column \"sick\": expected a class, \"no\", \"yes\", got \"maybe\"");
  CHECK(refusal_of_rows(header + "1,f,1,\n", MissingValues::mean).find("expected a class") != std::string::npos);
  for (const char* cell : {"", "NA", "NaN", "nan", "?"}) {
    CHECK(refusal_of_rows(fmt::format("{}1,f,{},no\n", header, cell))
              .starts_with(fmt::format("silo.csv, line 3, column \"height\": expected a value, got \"{}\"", cell)));
    CHECK(refusal_of_rows(fmt::format("{}1,{},1,no\n", header, cell)).find("column \"sex\": expected a value") !=
          std::string::npos);
  }
}

TEST_CASE("table: missing values by each rule") {
  const std::string text = "age,sex,height,sick\n10,f,NA,no\n,?,4,yes\n";
  SampleTerms run{.classes = {"no", "yes"}, .mean = {20, 0, 0, 2}, .deviation = {5, 1, 1, 0.5}};
  const auto input_by = [&](MissingValues missing) {
    run.table = people(missing);
    Dataset dataset{.name = "csv", .images = torch::zeros({2, 1}), .labels = torch::zeros({2}, torch::kLong)};
    dataset.table = std::make_shared<Table>(parse_table(text, "silo.csv"));
    return model_input(dataset, run).x;
  };
  CHECK(input_by(MissingValues::mean).equal(torch::tensor({{-2.0F, 1.0F, 0.0F, 0.0F}, {0.0F, 0.0F, 0.0F, 4.0F}})));
  CHECK(input_by(MissingValues::zero).equal(torch::tensor({{-2.0F, 1.0F, 0.0F, -4.0F}, {-4.0F, 0.0F, 0.0F, 4.0F}})));
  run.mean = {20, 0, 0, 0, 0, 2, 0};
  run.deviation = {5, 1, 1, 1, 1, 0.5, 1};
  CHECK(input_by(MissingValues::indicator)
            .equal(torch::tensor(
                {{-2.0F, 0.0F, 1.0F, 0.0F, 0.0F, 0.0F, 1.0F}, {0.0F, 1.0F, 0.0F, 0.0F, 1.0F, 4.0F, 0.0F}})));
  std::vector<std::string> names;
  for (const TableFeature& feature : table_features(run.table)) names.push_back(feature.name);
  CHECK(names == Row{"age", "age is missing", "sex=f", "sex=m", "sex is missing", "height", "height is missing"});
}

TEST_CASE("table: a category may be named as a missing value where the terms have it") {
  TableTerms terms{.label = "y"};
  terms.add({"country", {"DE", "NA"}});
  const EncodedRows rows = encoded(parse_table("country,y\nNA,a\nDE,b\n", "t"), terms, {"a", "b"}, {});
  CHECK(rows.samples.equal(torch::tensor({{0.0F, 1.0F}, {1.0F, 0.0F}})));
}

TEST_CASE("table: what both files of a folder show is the dictionary, whichever is loaded") {
  Folder folder;
  folder.write("train.csv", "id,colour,size,grade\n1,red,5,10\n2,blue,6,9\n")
      .write("test.csv", "grade,size,id,colour\n2,7,3,green\n");
  DataSource source = folder.source();
  source.columns = {.label = "grade", .columns = {}, .drop = {"id"}, .categorical = {"colour"}};
  const Dataset train = load_dataset(source, Split::train);
  const Dataset test = load_dataset(source, Split::test);
  CHECK((train.columns == test.columns));
  CHECK(train.columns.columns == Row{"colour", "size"});
  CHECK(train.columns.categories == Row{"blue", "green", "red"});
  CHECK(train.classes == Row{"2", "9", "10"});
  CHECK(train.images.equal(torch::tensor({{0.0F, 0.0F, 1.0F, 5.0F}, {1.0F, 0.0F, 0.0F, 6.0F}})));
  CHECK(test.labels.equal(torch::tensor({0}, torch::kLong)));
  source.columns.categorical.emplace_back("colours");
  CHECK(error_of(Errc::usage, [&] { load_dataset(source, Split::train); }).find("did you mean \"colour\"?") !=
        std::string::npos);
  source.columns.categorical.clear();
  CHECK(error_of(Errc::data, [&] {
          load_dataset(source, Split::train);
        }).ends_with("train.csv, line 2, column \"colour\": expected a number, got \"red\""));
  source.columns.columns = {"size"};
  CHECK(load_dataset(source, Split::train).images.sizes() == at::IntArrayRef({2, 1}));
}

TEST_CASE("table: a silo that says nothing of its columns reads them as the run's terms say") {
  Folder folder;
  folder.write("train.csv", "sick,height,age,sex\nyes,2,1,f\nno,4,3,m\n");
  const Dataset own = load_dataset(folder.source(), Split::train);
  CHECK(own.size() == 2);
  const SampleTerms run{.classes = {"no", "perhaps", "yes"}, .table = people()};
  const Dataset there = in_terms(own.part({1}), run);
  CHECK(there.images.equal(torch::tensor({{3.0F, 0.0F, 1.0F, 4.0F}})));
  CHECK(in_terms(own, run).labels.equal(torch::tensor({2, 0}, torch::kLong)));
  CHECK(there.task() == Task{{4}, 3});
  CHECK(test::code_of([&] { (void)in_terms(own, SampleTerms{.classes = {"no", "yes"}}); }) == Errc::usage);
}

TEST_CASE("table: a schema says it without files, and a silo's own must be the run's") {
  Folder folder;
  folder.write("train.csv", "sick,height,age,sex\nyes,2,1,f\n")
      .write("columns.json", json_of(TableSchema{people(), {"no", "yes"}}).dump());
  DataSource source = folder.source();
  source.schema = folder.path("columns.json");
  CHECK((read_schema(source.schema).terms == people()));
  source.missing = MissingValues::indicator;
  const std::optional<Dataset> known = known_dataset(source);
  REQUIRE(known);
  CHECK(known->task() == Task{{7}, 2});
  CHECK((sample_terms(*known).table == people(MissingValues::indicator)));
  CHECK(sample_terms(*known).range.empty());
  CHECK_FALSE(known_dataset(folder.source()));
  const Dataset own = load_dataset(source, Split::train);
  SampleTerms run{.classes = {"no", "yes"}, .table = people()};
  CHECK(in_terms(own, run).images.size(1) == 4);
  const auto difference = [&] { return error_of(Errc::data, [&] { (void)in_terms(own, run); }); };
  run.classes = {"yes", "no"};
  CHECK(difference().find("classes \"no\", \"yes\" here and \"yes\", \"no\" there") != std::string::npos);
  run.classes = {"no", "yes"};
  run.table.categories[1] = "d";
  CHECK(difference().find("column 2 is \"sex\", one of \"f\", \"m\" here and \"sex\", one of \"f\", \"d\" there") !=
        std::string::npos);
  run.table = people();
  run.table.label = "ill";
  CHECK(difference().find("label \"sick\" here and \"ill\" there") != std::string::npos);
}

TEST_CASE("table: schemas that cannot be are refused by key") {
  Folder folder;
  const auto refusal = [&folder](const char* text) {
    folder.write("s.json", text);
    return error_of(Errc::data, [&] { (void)read_schema(folder.path("s.json")); });
  };
  CHECK(refusal(R"({"classes": [], "columns": []})").ends_with("s.json: 'label' is missing"));
  CHECK(refusal(R"({"label": "y", "classes": ["a", 1], "columns": []})").find("classes: expected a list of texts") !=
        std::string::npos);
  CHECK(refusal(R"({"label": "y", "classes": ["a"], "columns": []})").find("columns: expected a list") !=
        std::string::npos);
  CHECK(refusal(R"({"label": "y", "classes": ["a"], "columns": [{"name": "x", "kind": "number"}]})")
            .find("columns[0]: unknown key \"kind\"") != std::string::npos);
  CHECK(
      refusal(R"({"label": "y", "classes": ["a"], "columns": [{"name": "y"}]})").find("two columns are named \"y\"") !=
      std::string::npos);
  CHECK(refusal(R"({"label": "y", "classes": ["a"], "columns": [{"name": "x", "categories": ["b", "b"]}]})")
            .find("has the category \"b\" twice") != std::string::npos);
}

TEST_CASE("table: figures leave missing values out, and arrays with such values are not written") {
  Folder folder;
  folder.write("train.csv", "a,b,y\n1,NA,u\n3,NA,v\n");
  DataSource source = folder.source();
  source.columns.label = "y";
  source.missing = MissingValues::zero;
  const Dataset dataset = load_dataset(source, Split::train);
  const SampleFigures figures = figures_of(dataset);
  CHECK(figures.mean == std::vector<double>{2, 0});
  CHECK(figures.max == std::vector<double>{3, 0});
  CHECK(dataset.all().x.equal(torch::tensor({{1.0F, 0.0F}, {3.0F, 0.0F}})));
  CHECK(test::code_of([&] { save_tensors(dataset, {0}, Split::train, folder.path("out")); }) == Errc::data);
}

}  // namespace headstart::learn
