#include "server/central_data.hpp"

#include <numeric>

#include <doctest/doctest.h>

#include "shared/learn/partition.hpp"
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
    const auto manifest = learn::draw_manifest(
        train, train, draws, {.kind = learn::PartitionKind::uniform, .num_clients = 2, .min_samples = 1}, 1);
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
  small.config.federation.strategy = Strategy::feddf;
  CHECK(refusal_of(small.config, small.train) ==
        "federation.strategy feddf needs a large public set, and the manifest " + small.config.manifest +
            " has none; draw one with draw.public_large above 0");
  small.config.manifest.clear();
  CHECK(refusal_of(small.config, small.train) ==
        "federation.strategy feddf needs data.manifest: it says which samples are the public set");
  small.config.federation.strategy = Strategy::fedavg;
  small.config.federation.validation = ValidationSource::server;
  CHECK(refusal_of(small.config, small.train) ==
        "validation.source server needs data.manifest: it says which samples are the validation set");
  small.config.federation.start = StartModel::kd;
  small.config.federation.consolidation.transfer = TransferSet::public_small;
  CHECK(refusal_of(small.config, small.train) ==
        "consolidation.transfer public-small needs data.manifest: it says which samples are the public set");
}

TEST_CASE("a training split that is loaded already is not read again") {
  learn::DrawOptions draws = no_public_sets;
  draws.public_large = 12;
  SmallData small(draws);
  small.config.federation.validation = ValidationSource::server;
  small.config.federation.strategy = Strategy::feddf;
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
