// What a pair study computes: its settings, its cells, and what a cell is called.
// Source: Alballa & Canini 2024 (arXiv 2402.14922), section III.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "experiments/lab/participants.hpp"
#include "experiments/lab/study_store.hpp"
#include "shared/base/fields.hpp"
#include "shared/learn/distill/distiller.hpp"
#include "shared/learn/tune/setting_search.hpp"

namespace headstart::lab {

/// How a teacher's model is distilled into a student's.
enum class PairMethod {
  vanilla,                   ///< With the study's temperature and alpha.
  tuned,                     ///< The best alpha at T = 1, then the best temperature, by validation accuracy.
  grid,                      ///< The best of the whole grid.
  automatic,                 ///< Chosen by the tuner.
  mutual,                    ///< Deep mutual learning.
  partitioned,               ///< Data-partitioning KD, supervised on the labeled public set, else unsupervised.
  partitioned_supervised,    ///< Masked by the labels.
  partitioned_unsupervised,  ///< Masked by confidence.
};
inline constexpr std::pair<PairMethod, std::string_view> pair_method_words[] = {
    {PairMethod::vanilla, "vanilla"},
    {PairMethod::tuned, "tuned"},
    {PairMethod::grid, "grid"},
    {PairMethod::automatic, "auto"},
    {PairMethod::mutual, "dml"},
    {PairMethod::partitioned, "dp-kd"},
    {PairMethod::partitioned_supervised, "dp-kd-supervised"},
    {PairMethod::partitioned_unsupervised, "dp-kd-unsupervised"}};

/// What it is distilled on. The student's data and the labeled public set have labels.
enum class PairTransfer { student, public_large, public_small, public_labeled };
inline constexpr std::pair<PairTransfer, std::string_view> pair_transfer_words[] = {
    {PairTransfer::student, "student"},
    {PairTransfer::public_large, "public-large"},
    {PairTransfer::public_small, "public-small"},
    {PairTransfer::public_labeled, "public-labeled"}};

[[nodiscard]] bool has_labels(PairTransfer transfer);
/// Whether temperature or alpha are chosen by validation data.
[[nodiscard]] bool is_searched(PairMethod method);

std::string_view word_of(PairMethod method);
std::string_view word_of(PairTransfer transfer);

/// All that one cell depends on, but for which pair it is.
struct PairSettings : ParticipantSettings {
  learn::DistillOptions kd;
  learn::SettingGrid grid;
  bool rates_epochs = false;
};
void declare_fields(Fields& fields, PairSettings& settings);

/// Which cells a study has.
struct PairPlan {
  std::vector<std::string> partitions = {"label-dirichlet"};
  std::vector<std::int64_t> seeds = {1};
  std::vector<PairMethod> methods = {PairMethod::vanilla, PairMethod::tuned, PairMethod::mutual,
                                     PairMethod::partitioned};
  std::vector<PairTransfer> transfers = {PairTransfer::student, PairTransfer::public_large, PairTransfer::public_small,
                                         PairTransfer::public_labeled};
  std::int64_t num_pairs = 0;           ///< Of each partition and seed; 0: all.
  std::int64_t num_searched_pairs = 0;  ///< For methods that search; 0: as many as for the others.
};
void declare_fields(Fields& fields, PairPlan& plan);

struct PairStudy {
  PairSettings settings;  ///< Its partition's kind is replaced by each of the plan's.
  PairPlan plan;
};
/// Without "partition.kind", which the plan's list replaces.
void declare_fields(Fields& fields, PairStudy& study);
/// Throws Error(usage), naming the settings, where no cell or a cell that cannot be is asked for.
void check(const PairStudy& study);

/// One cell of a study. A participant's cell is its pre-training and how it does alone.
struct PairCell {
  PairSettings settings;
  std::int64_t seed = 1;
  bool is_pair = true;
  PairTransfer transfer = PairTransfer::student;
  PairMethod method = PairMethod::vanilla;
  std::int64_t teacher = 0;
  std::int64_t student = 0;  ///< Or the participant that the cell is about.
};
Cell to_cell(const PairCell& cell);
/// Throws Error(data) where it is not such a cell.
PairCell pair_cell_of(const Cell& cell);

/// How good a participant is by the validation source: what pairs are drawn by.
struct Strength {
  double validation_accuracy = 0;
};

/// The participants' cells of a whole study.
std::vector<Cell> participant_cells(const PairStudy& study);
/// The pairs' cells of one partition and seed. Where not all pairs are taken, they are spread evenly over the order of
/// teacher-student differences in validation accuracy.
std::vector<Cell> pair_cells(const PairStudy& study, const std::string& partition, std::int64_t seed,
                             const std::vector<Strength>& strengths);

/// `count` of all ordered pairs (teacher, student), 0: all, spread evenly over the order of differences.
std::vector<std::pair<std::int64_t, std::int64_t>> spread_pairs(const std::vector<Strength>& strengths,
                                                                std::int64_t count);

}  // namespace headstart::lab
