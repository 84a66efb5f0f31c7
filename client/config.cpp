#include "client/config.hpp"

#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/learn/partition/manifest.hpp"

namespace headstart::client {

namespace {

nlohmann::json settings_of(learn::ModelSpec spec) {
  Fields fields;
  learn::declare_fields(fields, "own", spec);
  return fields.resolved();
}

}  // namespace

void declare_fields(Fields& fields, ClientConfig& config) {
  fields.text("server", config.server, "The server's address, wss://HOST:PORT (TLS) or ws://HOST:PORT.");
  fields.text("name", config.name, "This client's name in the run; each client has its own.");
  fields.group("connect", "How long an unreachable server is tried again");
  fields.number(
      "connect.patience", config.patience,
      "Seconds for which a server that cannot be reached, whose door or run is full, or that cannot take this "
      "client yet, is tried again; 0: one attempt.",
      {0, 1e6});
  fields.number("connect.patience_once_in", config.patience_once_in,
                "The same for a client that is in a run, whose server is restarted or whose connection was lost.",
                {0, 1e7});
  net::declare_fields(fields, "tls", config.tls);
  learn::declare_fields(fields, "data", config.data);
  fields.path("data.manifest", config.manifest,
              "Manifest that says which samples of the data set are this client's; empty: all of them.");
  fields.integer("data.share", config.share, "Which client of the manifest this one is, from 0.", {-1, 100000});
  fields.group("model", "This silo's copy of the federated model");
  fields.path("model.script", config.script, "This silo's copy of the scripted model, where the run trains one.");
  fields.checked_text(
      "own_model", config.own_model,
      "Pre-train this architecture instead of the federated one (cnn, resnet18, mlp, linear, script:FILE); it still "
      "teaches.",
      learn::require_model_path);
  learn::declare_fields(fields, "own", config.own_spec);
  fields.group("own", "Sizes of the network that own_model names");
  fields.withdraw("own.name");
  fields.group("store", "Where pre-trained models are kept");
  fields.path("store.pretrained", config.store, "Folder that keeps pre-trained models for later runs; empty: none.");
  fields.group("keep", "What this silo keeps of a run");
  fields.path(
      "keep.folder", config.keep,
      "Folder where this silo keeps, for each run, the global model of the last and of the best round, the terms "
      "and a line a round; empty: nothing is kept.");
  fields.choice("share_model", config.share_model,
                "Whom this silo's pre-trained model may reach: nobody (answers: what it answers on public samples may "
                "leave, for the server to add up), the server alone, or other silos too (peers: as a teacher on "
                "another silo's data, to be rated there, or as what the global model starts from).",
                Choices<Sharing>(sharing_words));
  fields.choice("share_metrics", config.share_metrics,
                "How the server records what this silo measures of each round's model on its held-out samples: in the "
                "sum over all silos alone, or also by this silo's name (rounds.jsonl, summary.json). The server sees "
                "each silo's counts in both cases.",
                Choices<MetricSharing>(metric_sharing_words));
  fields.group("sums", "What sums over this silo's samples may show");
  fields.integer("sums.min_samples", config.min_sum_samples,
                 "Least samples of a class for them to be in a sum that leaves the silo (start.head, rounds.head, "
                 "consolidation.target): a sum over a "
                 "few samples says much about them. The run may ask for more.",
                 {1, 1e9});
  declare_fields(fields, "worker", config.worker);
  fields.group("statistics", "What statistics of this silo's features may show");
  fields.integer("statistics.min_samples", config.min_described_samples,
                 "Least samples for this silo to say anything of its features (data.statistics federated at the "
                 "server), and least values of a feature for its mean and deviation to leave: those of a few say much "
                 "about each of them.",
                 {1, 1e9});
  fields.flag("statistics.range", config.shows_range,
              "The least and greatest value of each feature may leave too; each is the value of a single sample.");
  fields.text("device", config.device, "Where the client computes: cpu, cuda or auto.");
  fields.integer("threads", config.threads, "LibTorch threads; the same at all clients for a repeatable run.",
                 {1, 1024});
  fields.text("log", config.log, "Log level: trace, debug, info, warn, error, off.");
  fields.choice("log_format", config.log_format, "Log lines as text, or as JSON objects.",
                Choices<LogFormat>(log_format_words));
}

learn::Dataset load_own_data(const ClientConfig& config) {
  learn::DataSource source = config.data;
  source.missing = learn::MissingValues::mean;  // kept as missing: the run says what becomes of them
  learn::Dataset train = learn::load_dataset(source, learn::Split::train);
  if (config.manifest.empty()) {
    if (config.share < 0) return train;
    throw Error(Errc::usage, "data.share needs data.manifest, which says what the shares are");
  }
  const learn::Manifest manifest = learn::load_manifest(config.manifest);
  learn::check_fits(manifest, train, learn::Split::train, config.manifest);
  if (config.share < 0 || config.share >= static_cast<std::int64_t>(manifest.clients.size())) {
    throw Error(Errc::usage, fmt::format("data.share {}: {} has clients 0 to {}", config.share, config.manifest,
                                         manifest.clients.size() - 1));
  }
  return train.part(manifest.clients[static_cast<std::size_t>(config.share)]);
}

SiloOptions worker_options(const ClientConfig& config) {
  SiloOptions options{
      .name = config.name, .device = config.device, .own_model = {}, .script = config.script, .store = {}};
  options.shares_with_peers = config.share_model == Sharing::peers;
  options.withholds_model = config.share_model == Sharing::answers;
  options.min_sum_samples = config.min_sum_samples;
  options.shows_metrics = config.share_metrics == MetricSharing::silo;
  options.min_described_samples = config.min_described_samples;
  options.shows_range = config.shows_range;
  if (!config.own_model.empty()) {
    options.own_model = config.own_spec;
    options.own_model->name = config.own_model;
  } else if (settings_of(config.own_spec) != settings_of({})) {
    throw Error(Errc::usage, "own.*: these describe the architecture that own_model names, and own_model is not set");
  }
  if (!config.store.empty()) options.store = config.store;
  return options;
}

}  // namespace headstart::client
