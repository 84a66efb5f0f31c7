#include "experiments/lab/peer_settings.hpp"

#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/learn/distill/dissimilarity.hpp"
#include "shared/learn/peers/peer_method.hpp"

namespace headstart::lab {

namespace {

using nlohmann::json;

std::vector<std::string> method_words() {
  std::vector<std::string> words;
  for (const learn::PeerMethodRow& row : learn::peer_methods()) words.emplace_back(row.name);
  return words;
}

/// What a kd cell is called, of its settings: those at their defaults are not named.
std::string kd_key(const learn::DistillOptions& kd) {
  std::string key =
      fmt::format("/{}/{}/alpha-{:g}/T-{:g}", kd.measure,
                  word_of(Choices<learn::TeacherAverage>(learn::average_words), kd.average), kd.alpha, kd.temperature);
  if (kd.strength != learn::MeasureStrength::plain) key += "/matched";
  if (kd.reduction != learn::BatchReduction::mean) key += "/published";
  return key;
}

/// One cell for each combination of the plan's distillations.
void add_distillations(const PeerPlan& plan, const PeerCell& base, std::vector<PeerCell>& cells) {
  for (const std::string& measure : plan.measures) {
    for (const learn::TeacherAverage average : plan.averages) {
      for (const learn::MeasureStrength strength : plan.strengths) {
        for (const learn::BatchReduction reduction : plan.reductions) {
          for (const double alpha : plan.alphas) {
            for (const double temperature : plan.temperatures) {
              PeerCell cell = base;
              learn::DistillOptions& kd = cell.settings.peers.kd;
              kd.measure = measure;
              kd.average = average;
              kd.strength = strength;
              kd.reduction = reduction;
              kd.alpha = alpha;
              kd.temperature = temperature;
              cells.push_back(std::move(cell));
            }
          }
        }
      }
    }
  }
}

}  // namespace

void declare_fields(Fields& fields, PeerSettings& settings) {
  declare_fields(fields, static_cast<ParticipantSettings&>(settings));
  learn::declare_fields(fields, "graph", settings.graph);
  learn::declare_fields(fields, settings.peers);
}

void declare_fields(Fields& fields, PeerPlan& plan) {
  fields.group("study", "What the study varies: partitions, seeds, graphs, methods, distillations");
  fields.words("study.partitions", plan.partitions, "How the data are divided among the peers.",
               learn::partition_words());
  fields.integers("study.seeds", plan.seeds, "Seeds: each draws data, graph, peers and orders of its own.",
                  {.min = 0, .max = 9007199254740992.0});
  fields.words("study.graphs", plan.graphs, "Who exchanges with whom (graph.kind).", learn::graph_words());
  fields.words("study.methods", plan.methods, "What peers do with what they exchange (peers.method).", method_words());
  fields.words("study.measures", plan.measures, "kd: dissimilarities (kd.measure).", learn::dissimilarity_words());
  fields.choices("study.averages", plan.averages, "kd: what is averaged over the teachers (kd.average).",
                 Choices<learn::TeacherAverage>(learn::average_words));
  fields.choices("study.strengths", plan.strengths, "kd: strengths of the measures (kd.strength).",
                 Choices<learn::MeasureStrength>(learn::strength_words));
  fields.choices("study.reductions", plan.reductions, "kd: reductions over a batch (kd.reduction).",
                 Choices<learn::BatchReduction>(learn::reduction_words));
  fields.numbers("study.alphas", plan.alphas, "kd: weights of the distillation term (kd.alpha).", {.min = 0, .max = 1});
  fields.numbers("study.temperatures", plan.temperatures, "kd: temperatures (kd.temperature).",
                 {.min = 1e-3, .max = 1e3});
}

void declare_fields(Fields& fields, PeerStudy& study) {
  declare_fields(fields, study.plan);
  declare_fields(fields, study.settings);
  for (const char* listed : {"partition.kind", "graph.kind", "peers.method", "kd.measure", "kd.average", "kd.strength",
                             "kd.reduction", "kd.alpha", "kd.temperature"}) {
    fields.withdraw(listed);
  }
}

void check(const PeerStudy& study) {
  const auto require = [](bool holds, const std::string& otherwise) {
    if (!holds) throw Error(Errc::usage, otherwise);
  };
  const PeerPlan& plan = study.plan;
  require(!plan.partitions.empty() && !plan.seeds.empty() && !plan.graphs.empty() && !plan.methods.empty(),
          "study.partitions, study.seeds, study.graphs and study.methods each need at least one entry");
  require(study.settings.partition.num_clients >= 2, "partition.clients: an exchange needs 2 peers at least");
  for (const std::string& method : plan.methods) {
    const learn::PeerMethodRow& row = learn::peer_method_row(method);
    require(!row.needs_second_head || study.settings.model.second_head,
            fmt::format("study.methods has {}, which needs a model with two heads: set model.second_head", method));
    require(!row.needs_public_set || study.settings.draws.public_large > 0,
            fmt::format("study.methods has {}, which needs a public set, and draw.public_large is 0", method));
  }
  const std::vector<PeerCell> cells = peer_cells(study);
  require(!cells.empty(),
          "study.methods has kd alone, and one of study.measures, .averages, .strengths, .reductions, .alphas and "
          ".temperatures is empty: there is no cell");
  for (const PeerCell& cell : cells) {
    if (cell.settings.peers.method == "kd") learn::check(cell.settings.peers.kd, "kd");
    // An impossible graph is said before anything is trained.
    (void)learn::make_graph(cell.settings.graph, cell.settings.partition.num_clients,
                            Seed(static_cast<std::uint64_t>(cell.seed)).child("graph"));
  }
}

Cell to_cell(const PeerCell& cell) {
  PeerSettings copy = cell.settings;
  Fields fields;
  declare_fields(fields, copy);
  json settings = fields.resolved();
  settings["peer"] = {{"seed", cell.seed}};
  std::string key = fmt::format("{}/seed-{}/{}/{}", copy.partition.kind, cell.seed, copy.graph.kind, copy.peers.method);
  if (copy.peers.method == "kd") key += kd_key(copy.peers.kd);
  return {std::move(key), std::move(settings)};
}

PeerCell peer_cell_of(const Cell& cell) {
  try {
    json settings = cell.settings;
    PeerCell peer;
    peer.seed = settings.at("peer").at("seed").get<std::int64_t>();
    settings.erase("peer");
    Fields fields;
    declare_fields(fields, peer.settings);
    fields.load(settings, "cell " + cell.key);
    return peer;
  } catch (const json::exception& failure) {
    throw Error(Errc::data, fmt::format("cell {}: is not of a study of peers ({})", cell.key, failure.what()));
  }
}

bool is_peer_cell(const Cell& cell) { return cell.settings.contains("peer"); }

std::vector<PeerCell> peer_cells(const PeerStudy& study) {
  std::vector<PeerCell> cells;
  for (const std::string& partition : study.plan.partitions) {
    for (const std::int64_t seed : study.plan.seeds) {
      for (const std::string& graph : study.plan.graphs) {
        for (const std::string& method : study.plan.methods) {
          if (learn::peer_method_row(method).ignores_graph && graph != study.plan.graphs.front()) continue;
          PeerCell cell{.settings = study.settings, .seed = seed};
          cell.settings.partition.kind = partition;
          cell.settings.graph.kind = graph;
          cell.settings.peers.method = method;
          if (method == "kd") {
            add_distillations(study.plan, cell, cells);
          } else {
            cells.push_back(std::move(cell));
          }
        }
      }
    }
  }
  return cells;
}

}  // namespace headstart::lab
