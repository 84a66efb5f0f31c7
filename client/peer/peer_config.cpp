#include "client/peer/peer_config.hpp"

#include <fmt/format.h>

#include "client/config.hpp"
#include "shared/base/error.hpp"
#include "shared/learn/partition/manifest.hpp"

namespace headstart::peer {

void declare_fields(Fields& fields, PeerConfig& config) {
  fields.path("peers", config.peers, "peers.json: what all peers of the run have alike.");
  fields.text("name", config.name, "This peer's name among the members of peers.json.");
  fields.group("run", "What the run leaves");
  fields.path("run.folder", config.folder, "Folder of the run; one that was stopped goes on from it.");
  fields.group("listen", "Where neighbours reach this peer, if it has an address in peers.json");
  fields.text("listen.address", config.address, "IP address to listen on; 0.0.0.0 for all.");
  fields.integer("listen.port", config.port, "Port to listen on; -1: that of its address in peers.json.", {-1, 65535});
  fields.flag("listen.insecure", config.insecure, "Listen beyond loopback without TLS.");
  fields.integer("listen.handshakes", config.max_handshakes, "Connections that have not greeted yet, at a time.",
                 {1, 100000});
  fields.group("admin", "Probes and metrics");
  fields.text("admin.address", config.admin_address, "IP address of the port for probes and metrics.");
  fields.integer("admin.port", config.admin_port,
                 "Port that answers GET /healthz and /metrics (Prometheus), without TLS; 0: any free one, written to "
                 "the file admin-port in the run's folder; -1: none.",
                 {-1, 65535});
  net::declare_fields(fields, "tls", config.tls);
  learn::declare_fields(fields, "data", config.data);
  fields.path(
      "data.manifest", config.manifest,
      "Manifest that says which samples of the data set are this peer's, and which are public or test samples.");
  fields.integer("data.share", config.share, "Which client of the manifest this one is, from 0.", {-1, 100000});
  fields.flag("data.test", config.evaluates_test,
              "Judge models on the data set's test split too (the manifest's test samples), not on held-out samples "
              "alone.");
  learn::declare_fields(fields, "public", config.public_data);
  fields.group("public", "Public samples, the same at all peers, where a method needs them and no manifest names any");
  fields.group("model", "This silo's copy of the model");
  fields.path("model.script", config.script, "This silo's copy of the scripted model, where the run trains one.");
  fields.group("store", "Where pre-trained models are kept");
  fields.path("store.pretrained", config.store, "Folder that keeps pre-trained models for later runs; empty: none.");
  fields.text("device", config.device, "Where the peer computes: cpu, cuda or auto.");
  fields.integer("threads", config.threads, "LibTorch threads; the same at all peers for a repeatable run.", {1, 1024});
  fields.text("log", config.log, "Log level: trace, debug, info, warn, error, off.");
  fields.choice("log_format", config.log_format, "Log lines as text, or as JSON objects.",
                Choices<LogFormat>(log_format_words));
}

PeerData load_data(const PeerConfig& config, bool needs_public_set) {
  client::ClientConfig own;
  own.data = config.data;
  own.manifest = config.manifest;
  own.share = config.share;
  PeerData data{.own = client::load_own_data(own), .test = {}, .public_samples = {}};
  std::optional<learn::Manifest> manifest;
  if (!config.manifest.empty()) manifest = learn::load_manifest(config.manifest);
  if (config.evaluates_test) {
    data.test = learn::load_dataset(config.data, learn::Split::test);
    if (manifest) {
      learn::check_fits(*manifest, *data.test, learn::Split::test, config.manifest);
      data.test = data.test->part(manifest->test);
    }
  }
  if (!needs_public_set) return data;
  if (!config.public_data.path.empty()) {
    data.public_samples = learn::load_dataset(config.public_data, learn::Split::train);
  } else if (manifest && !manifest->public_large.empty()) {
    data.public_samples = learn::load_dataset(config.data, learn::Split::train).part(manifest->public_large);
  } else {
    throw Error(Errc::usage,
                "peers.method needs public samples, the same at all peers: set public.set and public.path, or "
                "data.manifest with public samples");
  }
  return data;
}

}  // namespace headstart::peer
