#include "server/phases/central_data.hpp"

#include <numeric>

#include <doctest/doctest.h>
#include <torch/types.h>

#include "shared/base/files.hpp"
#include "shared/learn/partition/manifest.hpp"
#include "tests/support/learning.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart::server {
namespace {

using learn::Split;

/// A data set on disk, its training split in memory, and a manifest that says what of it is drawn for what.
class SmallData {
 public:
  explicit SmallData(const learn::DrawOptions& draws) {
    const learn::Samples samples = test::separable_samples(60, Seed(1));
    train = {.name = "tensors", .images = samples.x, .labels = samples.y, .num_classes = 4};
    std::vector<std::int64_t> all(60);
    std::iota(all.begin(), all.end(), 0);
    learn::save_tensors(train, all, Split::test, folder / "data");
    config.data = {.set = "tensors", .path = (folder / "data").string()};
    config.manifest = (folder / "manifest.json").string();
    const auto manifest =
        learn::draw_manifest(train, train, draws, {.kind = "uniform", .num_clients = 2, .min_samples = 1}, 1);
    learn::save_manifest(manifest, config.manifest);
  }

  test::TemporaryFolder folder;
  learn::Dataset train;
  ServerConfig config;
};

constexpr learn::DrawOptions no_public_sets{
    .validation = 8, .public_large = 0, .public_small = 0, .public_labeled = 0, .clients = 20, .test = 0};

std::string refusal_of(const ServerConfig& config, const learn::Dataset& train) {
  return test::error_of(Errc::usage, [&] { load_central_data(config, train); });
}

TEST_CASE("a set that the manifest has not: one sentence says who needs it and what draws it") {
  SmallData small(no_public_sets);
  small.config.federation.strategy.name = "feddf";
  CHECK(refusal_of(small.config, small.train) ==
        "federation.strategy feddf needs a large public set, and the manifest " + small.config.manifest +
            " has none; draw one with draw.public_large above 0");
  small.config.manifest.clear();
  CHECK(refusal_of(small.config, small.train) ==
        "federation.strategy feddf needs data.manifest: it says which samples are the public set");
  small.config.federation.strategy.name = "fedavg";
  small.config.federation.validation = ValidationSource::server;
  CHECK(refusal_of(small.config, small.train) ==
        "validation.source server needs data.manifest: it says which samples are the validation set");
  small.config.federation.start = StartModel::kd;
  small.config.federation.consolidation.transfer = TransferSet::public_small;
  CHECK(refusal_of(small.config, small.train) ==
        "consolidation.transfer public-small needs data.manifest: it says which samples are the public set");
}

TEST_CASE("a server without data: a known set or the settings say what a sample is, and no file is read") {
  ServerConfig config;
  config.federation.central_evaluation = false;
  config.data = {.set = "cifar10", .path = "/nowhere"};
  CHECK(load_central_data(config).task == learn::Task{{3, 32, 32}, 10});
  CHECK(load_central_data(config).samples.classes[1] == "automobile");
  CHECK_FALSE(load_central_data(config).figures);
  config.data = {.set = "tensors"};
  const auto refusal = [&config] { return test::error_of(Errc::usage, [&] { load_central_data(config); }); };
  CHECK(refusal().find("data.classes and data.shape") != std::string::npos);
  Fields fields;
  declare_fields(fields, config);
  fields.set("data.classes=NORMAL,PNEUMONIA");
  fields.set("data.shape=[1,8,8]");
  fields.set("data.mean=[0.5]");
  fields.set("data.deviation=[0.25]");
  fields.set("data.range=[0,1]");
  check(config);
  const CentralData data = load_central_data(config);
  CHECK(data.task == learn::Task{{1, 8, 8}, 2});
  CHECK(data.samples.classes == std::vector<std::string>{"NORMAL", "PNEUMONIA"});
  CHECK(data.samples.mean == std::vector<double>{0.5});
  CHECK(data.samples.range == std::vector<double>{0, 1});
  CHECK(data.samples.stored == learn::Stored::unknown);
  CHECK(data.test.size() == 0);
  fields.set("data.shape=[12]");
  check(config);
  CHECK(load_central_data(config).task == learn::Task{{12}, 2});
  for (const auto& [shape, words] :
       {std::pair("[1,1,1,1,1,1,1,12]", "data.shape: a sample has 1 to 7 dimensions, not 8"),
        std::pair("[65536,65536]", "data.shape: a sample has at most 2147483648 values, not 65536x65536")}) {
    fields.set(std::string("data.shape=") + shape);
    CHECK(test::error_of(Errc::usage, [&] { check(config); }) == words);
  }
  fields.set("data.shape=[1,8,8]");
  fields.set("data.classes=3");
  CHECK(load_central_data(config).samples.classes == std::vector<std::string>{"0", "1", "2"});
  fields.set("data.deviation=[]");
  CHECK(test::error_of(Errc::usage, [&] { check(config); }).find("data.mean has 1 numbers") != std::string::npos);
}

TEST_CASE("a server's tables: their columns are the run's, and its samples wait for the silos' statistics") {
  const test::TemporaryFolder folder;
  write_text_atomically(folder / "test.csv", "age,sex,y\n10,f,no\n?,m,yes\n30,f,no\n");
  ServerConfig config;
  config.data = {.set = "csv", .path = folder.path().string()};
  config.data.columns.label = "y";
  config.data.columns.categorical = {"sex"};
  config.data.missing = learn::MissingValues::mean;
  CHECK(test::error_of(Errc::usage, [&] { load_central_data(config); }).find("set data.statistics federated") !=
        std::string::npos);
  config.terms.statistics = plan::StatisticsSource::federated;
  CentralData data = load_central_data(config);
  CHECK(data.task == learn::Task{{3}, 2});
  CHECK(data.samples.table.columns == std::vector<std::string>{"age", "sex"});
  CHECK(data.awaits_statistics);
  CHECK_FALSE(data.figures);  // they would show single rows
  CHECK(data.samples.range.empty());
  CHECK(data.test.x[1][0].isnan().item<bool>());
  normalise_by({{20, 0, 0}, {5, 1, 1}}, data);
  CHECK(data.test.x.equal(torch::tensor({{-2.0F, 1.0F, 0.0F}, {0.0F, 0.0F, 1.0F}, {2.0F, 1.0F, 0.0F}})));
  CHECK(data.samples.deviation == std::vector<double>{5, 1, 1});
  config.samples.mean = {1, 1, 1};
  config.samples.deviation = {1, 1, 1};
  CHECK(test::error_of(Errc::usage, [&] { check(config); }).find("leave data.mean and data.deviation out") !=
        std::string::npos);
}

TEST_CASE("settings name the classes of the server's own data, and a class without test samples is said") {
  SmallData small(no_public_sets);
  small.config.manifest.clear();
  small.config.samples.classes = {"a", "b", "c", "d"};
  small.config.samples.mean = {1};
  small.config.samples.deviation = {2};
  const CentralData data = load_central_data(small.config);
  CHECK(data.samples.classes == small.config.samples.classes);
  CHECK(torch::equal(data.test.x, (small.train.images - 1) / 2));
  REQUIRE(data.figures);
  CHECK(data.figures->num_samples == 60);
  CHECK(data.remarks.empty());
  small.config.samples.classes = {"a", "b", "c", "d", "e"};
  // meta.json says four.
  CHECK(test::error_of(Errc::data, [&] { load_central_data(small.config); }).find("4 classes") != std::string::npos);
  std::filesystem::remove(small.folder / "data/meta.json");
  REQUIRE(load_central_data(small.config).remarks.size() == 1);
  CHECK(load_central_data(small.config).remarks[0].find(R"(no samples of "e")") != std::string::npos);
  small.config.samples.classes = {"a", "b", "c"};
  CHECK(test::error_of(Errc::data, [&] { load_central_data(small.config); }).find("test-labels.npy, index") !=
        std::string::npos);
  small.config.samples = {.classes = {}, .shape = {1, 9, 9}};
  CHECK(test::error_of(Errc::usage, [&] { load_central_data(small.config); }).find("1x12x12") != std::string::npos);
}

TEST_CASE("a training split that is loaded already is not read again") {
  learn::DrawOptions draws = no_public_sets;
  draws.public_large = 12;
  SmallData small(draws);
  small.config.federation.validation = ValidationSource::server;
  small.config.federation.strategy.name = "feddf";
  CHECK(test::error_of(Errc::data, [&] { load_central_data(small.config); }).find("train-images.npy") !=
        std::string::npos);
  const CentralData data = load_central_data(small.config, small.train);
  CHECK(data.validation.size() == 8);
  CHECK(data.transfer.size() == 12);
  CHECK_FALSE(data.transfer.is_labeled());
  CHECK(data.test.size() == 60);
}

}  // namespace
}  // namespace headstart::server
