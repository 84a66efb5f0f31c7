// What a study of peers computes: its settings, its cells, and what a cell is called.
// Source: Molo et al., SISAP 2024 and FGCS 176.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "experiments/lab/participants.hpp"
#include "experiments/lab/study_store.hpp"
#include "shared/learn/peers/graph.hpp"
#include "shared/learn/peers/peer_options.hpp"

namespace headstart::lab {

/// All that one cell depends on, but for the seed.
struct PeerSettings : ParticipantSettings {
  learn::GraphOptions graph;
  learn::PeerOptions peers;
};
void declare_fields(Fields& fields, PeerSettings& settings);

/// Which cells a study has: of each partition, seed and graph one a method, and for kd one for each measure, average,
/// strength, reduction, alpha and temperature.
struct PeerPlan {
  std::vector<std::string> partitions = {"primary"};
  std::vector<std::int64_t> seeds = {1};
  std::vector<std::string> graphs = {"full"};
  std::vector<std::string> methods = {"kd", "gossip", "alone"};
  std::vector<std::string> measures = {"kl", "js", "sed", "td"};
  std::vector<learn::TeacherAverage> averages = {learn::TeacherAverage::probabilities};
  std::vector<learn::MeasureStrength> strengths = {learn::MeasureStrength::plain};
  std::vector<learn::BatchReduction> reductions = {learn::BatchReduction::mean};
  std::vector<double> alphas = {0.5};
  std::vector<double> temperatures = {1};
};
void declare_fields(Fields& fields, PeerPlan& plan);

struct PeerStudy {
  PeerSettings settings;  ///< What the plan lists is replaced by each of the list.
  PeerPlan plan;
};
/// Without the settings that the plan's lists replace.
void declare_fields(Fields& fields, PeerStudy& study);
/// Throws Error(usage), naming the settings, where no cell or a cell that cannot be is asked for.
void check(const PeerStudy& study);

/// One cell of a study: all peers, over all rounds.
struct PeerCell {
  PeerSettings settings;
  std::int64_t seed = 1;
};
Cell to_cell(const PeerCell& cell);
/// Throws Error(data) where it is not such a cell.
PeerCell peer_cell_of(const Cell& cell);
/// Whether a cell is of a study of peers.
bool is_peer_cell(const Cell& cell);

/// Of the whole study, by partition, seed and graph.
std::vector<PeerCell> peer_cells(const PeerStudy& study);

}  // namespace headstart::lab
