#include "experiments/lab/central.hpp"

#include <doctest/doctest.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/partition/manifest.hpp"
#include "tests/support/learning.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/throws.hpp"

namespace headstart::lab {
namespace {

/// 240 samples of three clients, 40 for validation, 160 for the test, on disk.
class SmallCentral {
 public:
  SmallCentral() {
    write(learn::Split::train, 480, Seed(1));
    write(learn::Split::test, 160, Seed(2));
    settings.data = {.set = "tensors", .path = (folder / "data").string()};
    settings.model = test::small_spec(learn::Norm::none);
    settings.training.max_epochs = 4;
    settings.training.batch_size = 8;
    settings.training.optimizer.lr = 0.01;
  }

  nlohmann::json run(const std::string& name, const std::string& kind, std::int64_t num_validation = 40) {
    const learn::Dataset train = learn::load_dataset(settings.data, learn::Split::train);
    const learn::Dataset test = learn::load_dataset(settings.data, learn::Split::test);
    const learn::DrawOptions draws{.validation = num_validation,
                                   .public_large = 0,
                                   .public_small = 0,
                                   .public_labeled = 0,
                                   .clients = 240,
                                   .test = 160};
    settings.manifest = (folder / (name + ".json")).string();
    learn::save_manifest(learn::draw_manifest(train, test, draws, {.kind = kind, .num_clients = 3}, 7),
                         settings.manifest);
    settings.folder = (folder / name).string();
    return train_centrally(settings, std::chrono::steady_clock::now);
  }

  void write(learn::Split split, std::int64_t count, Seed seed, double scale = 1) const {
    const learn::Samples samples = test::separable_samples(count, seed);
    const learn::Dataset dataset{
        .name = "separable", .images = samples.x * scale, .labels = samples.y, .num_classes = 4};
    std::vector<std::int64_t> all(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
    learn::save_tensors(dataset, all, split, folder / "data");
  }

  test::TemporaryFolder folder;
  CentralSettings settings;
};

TEST_CASE("central: trains on the samples of all clients, whoever holds them, and repeats itself") {
  SmallCentral central;
  const nlohmann::json uniform = central.run("uniform", "uniform");
  const nlohmann::json skewed = central.run("skewed", "quantity-skew");
  CHECK(uniform["num_examples"] == 240);
  CHECK(uniform["validation_examples"] == 40);
  CHECK(uniform["epoch_chosen_by"] == "validation set of the manifest");
  CHECK(uniform["clients"] == 3);
  CHECK(uniform["epochs"] == 4);
  CHECK(uniform["accuracy"] > 0.5);
  CHECK(uniform["model_digest"] == skewed["model_digest"]);
  CHECK(read_json(central.folder / "uniform" / "summary.json") == uniform);
  const nlohmann::json run = read_json(central.folder / "uniform" / "run.json");
  CHECK(run["config"]["pretrain"]["optimizer"] == "adam");
  CHECK(run["config"]["pretrain"]["max_epochs"] == 4);
  CHECK_FALSE(run["reproducible_with"]["libtorch"].get<std::string>().empty());
}

TEST_CASE("central: keeps the epoch that its validation samples prefer, and says what chose it") {
  SmallCentral central;
  central.settings.training.optimizer.lr = 0.02;
  central.settings.training.max_epochs = 6;
  const nlohmann::json summary = central.run("validated", "uniform");
  CHECK(summary["validation_accuracy"].is_number());
  // Epoch by epoch the same training: stopped at the chosen one, it ends with the model that was kept.
  central.settings.training.max_epochs = summary["best_epoch"].get<std::int64_t>();
  const nlohmann::json shorter = central.run("shorter", "uniform");
  CHECK(shorter["model_digest"] == summary["model_digest"]);
  CHECK(shorter["accuracy"] == summary["accuracy"]);

  const nlohmann::json held_out = central.run("held-out", "uniform", 0);
  CHECK(held_out["num_examples"] == 216);
  CHECK(held_out["validation_examples"] == 24);
  CHECK(held_out["epoch_chosen_by"] == "samples held out of the clients'");

  central.settings.held_out = 0;
  const nlohmann::json last = central.run("last", "uniform", 0);
  CHECK(last["num_examples"] == 240);
  CHECK(last["best_epoch"] == last["epochs"]);
  CHECK(last["validation_accuracy"].is_null());
}

TEST_CASE("central: a folder that exists is refused, as is a missing manifest") {
  SmallCentral central;
  (void)central.run("once", "uniform");
  CHECK(test::code_of([&] { (void)train_centrally(central.settings, std::chrono::steady_clock::now); }) ==
        Errc::storage);
  central.settings.manifest.clear();
  CHECK(test::error_of([&] {
          (void)train_centrally(central.settings, std::chrono::steady_clock::now);
        }).find("data.manifest is needed") == 0);
}

TEST_CASE("central: the run's constants are applied, and as many are wanted as there are channels") {
  SmallCentral central;
  const nlohmann::json plain = central.run("plain", "uniform");
  central.settings.mean = {0};
  central.settings.deviation = {1};
  CHECK(central.run("identity", "uniform")["model_digest"] == plain["model_digest"]);
  central.settings.deviation = {2};
  CHECK(central.run("halved", "uniform")["model_digest"] != plain["model_digest"]);
  central.settings.mean = {0, 0};
  CHECK(test::error_of(Errc::usage, [&] { central.run("two", "uniform"); }) == "data.mean: 2 numbers for 1 channels");
  central.settings.mean = {};
  CHECK(test::error_of(Errc::usage, [&] { central.run("half", "uniform"); }) ==
        "data.mean and data.deviation are given both, or neither");
}

TEST_CASE("central: splits that are stored by another scale are refused with the figures of both") {
  SmallCentral central;
  central.run("before", "uniform");
  for (const char* name : {"test-images.npy", "test-labels.npy"})
    std::filesystem::remove(central.folder / "data" / name);
  central.write(learn::Split::test, 160, Seed(2), 255);
  const std::string refusal =
      test::error_of(Errc::data, [&] { train_centrally(central.settings, std::chrono::steady_clock::now); });
  CHECK(refusal.find("training split: ") != std::string::npos);
}

}  // namespace
}  // namespace headstart::lab
