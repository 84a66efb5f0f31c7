#include "tests/support/small_run.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/files.hpp"
#include "shared/learn/core/random.hpp"

namespace headstart::test {

namespace {

const learn::Task task{.shape = {1, 12, 12}, .num_classes = 3};

/// Class c is bright in its own third of the rows, under noise.
learn::Samples samples(const at::Tensor& labels, Seed seed) {
  at::Tensor x = at::randn({labels.size(0), 1, 12, 12}, learn::generator(seed));
  for (std::int64_t i = 0; i < labels.size(0); ++i) {
    const auto c = labels[i].item<std::int64_t>();
    x[i][0].narrow(0, 4 * c, 4).add_(2.0);
  }
  return {x, labels};
}

learn::Samples balanced(std::int64_t count, std::string_view name) {
  return samples(torch::arange(count, torch::kLong) % 3, Seed(5).child(name));
}

}  // namespace

server::ServerConfig small_config(const std::filesystem::path& folder) {
  server::ServerConfig config;
  config.folder = folder.string();
  config.terms.seed = 7;
  config.terms.task = task;
  config.terms.model.channels = {3, 4};
  config.terms.model.kernel = 3;
  config.terms.model.hidden = 8;
  config.terms.model.norm = learn::Norm::batch;
  config.terms.held_out = 0.2;
  config.terms.train.epochs = 1;
  config.terms.train.batch_size = 8;
  config.terms.train.optimizer.lr = 0.05;
  config.terms.pretrain.max_epochs = 4;
  config.terms.pretrain.batch_size = 8;
  config.terms.consolidation.epochs = 3;
  config.terms.consolidation.batch_size = 8;
  config.federation.num_clients = small_num_clients;
  config.federation.num_rounds = 3;
  config.federation.validation = server::ValidationSource::server;
  config.federation.checkpoints = {.every = 1, .keep = 0};
  return config;
}

server::CentralData small_central_data() {
  server::CentralData data;
  data.task = task;
  data.dataset = "small";
  data.test = balanced(60, "test");
  data.validation = balanced(45, "validation");
  data.transfer = balanced(40, "transfer").without_labels();
  data.samples.stored = learn::Stored::float32;
  data.figures = learn::figures_of({.name = "small", .images = data.test.x, .labels = data.test.y});
  return data;
}

learn::Samples small_samples(std::int64_t index) {
  const std::int64_t count = 20 + 10 * index;
  // Most samples of client i are of class i mod 3.
  at::Tensor labels = torch::arange(count, torch::kLong) % 3;
  labels.narrow(0, 0, count / 2).fill_(index % 3);
  return samples(labels, Seed(5).child("client").child(static_cast<std::uint64_t>(index)));
}

std::string small_name(std::int64_t index) { return fmt::format("silo-{}", index); }

std::unique_ptr<client::LocalWorker> small_worker(std::int64_t index, client::SiloOptions options) {
  options.name = small_name(index);
  const learn::Samples own = small_samples(index);
  learn::Dataset data{.name = "small", .images = own.x, .labels = own.y, .num_classes = task.num_classes};
  return std::make_unique<client::LocalWorker>(std::move(options), std::move(data));
}

std::vector<std::string> checkpoints_of(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "checkpoints")) files.push_back(entry.path());
  std::ranges::sort(files);
  std::vector<std::string> contents;
  for (const auto& file : files) contents.push_back(read_text(file));
  return contents;
}

}  // namespace headstart::test
