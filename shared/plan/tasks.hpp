// What a client can be asked to do: the name of each kind of task, its settings, its inputs, and what it reports in
// numbers. Server and clients read and write them here, so that neither has to know the other's code.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shared/learn/core/state.hpp"
#include "shared/learn/core/task.hpp"
#include "shared/learn/metrics/evaluation.hpp"
#include "shared/learn/models/model.hpp"
#include "shared/learn/tune/setting_search.hpp"

namespace headstart::plan {

/// Kinds, as they travel. A program may know others (see the recipe in CONTRIBUTING.md).
namespace task {
/// Pre-train the client's own model; it stays with the client. Figures: Pretraining.
inline constexpr std::string_view pretrain = "pretrain";
/// Send the pre-trained model, in the schema of the client's own architecture.
inline constexpr std::string_view exchange = "exchange";
/// One round of local training from input `model`; further inputs are parts that a local objective takes. Settings:
/// TrainSettings. State: the update, which is the model with the parts that the objective returns (learn::joined).
inline constexpr std::string_view train = "train";
/// Count right, total and predicted samples of input `model` on the held-out data. Settings: EvaluateSettings, or none.
/// Figures: EvaluationFigures.
inline constexpr std::string_view evaluate = "evaluate";
/// State: logits [n, C] float32 of the pre-trained model on input `samples`, float32 [n, ...].
inline constexpr std::string_view logits = "logits";
/// Distil the inputs `teacher` into input `student` on the client's own data, with input `weights`, float64 [K, C].
/// Settings: learn::KdSetting. State: the student.
inline constexpr std::string_view distill = "distill";
/// State: input `model` with BatchNorm statistics of the client's training data.
inline constexpr std::string_view statistics = "statistics";
/// A sum over the training samples for fitting a head to features of the inputs `model`, one behind the other. Inputs
/// `projection` and `lift`, float64, where there are any: learn::FeatureMap. Settings: HeadSumSettings. With an input
/// `head`, float64 [u, C]: the gradient at that head, learn::head_gradient; else learn::moments_of. State: that sum in
/// fixed point, int64. Figures: HeadSumFigures.
inline constexpr std::string_view head_sum = "head_sum";
/// How much each of the input `samples`, float32 [n, ...] or uint8 as stored, is like the client's training samples:
/// state float64 [n], learn::density_log_odds of the pre-trained model's features.
inline constexpr std::string_view densities = "densities";
/// The client's share of the targets of the input `samples`, as for densities: of each sample and class the pre-trained
/// model's softmax(z / T), times its weight. Settings: AnswerSettings. State: learn::packed_answers, [n, C].
inline constexpr std::string_view answers = "answers";
/// Keep input `model`, the global model of a round, for the silo's people. Settings: KeepSettings. Asked of clients
/// that announce it, which do where their people want it (keep.folder).
inline constexpr std::string_view keep = "keep";
/// Mean and deviation of each feature of the training samples before they are normalised, how many values are there
/// and how many are missing. State: learn::packed of what the silo releases. Figures: DescribeFigures.
inline constexpr std::string_view describe = "describe";
}  // namespace task

/// Names of inputs.
namespace input {
inline constexpr std::string_view model = "model";
inline constexpr std::string_view samples = "samples";
inline constexpr std::string_view student = "student";
inline constexpr std::string_view weights = "weights";
inline constexpr std::string_view teacher = "teacher";
inline constexpr std::string_view head = "head";
inline constexpr std::string_view projection = "projection";
inline constexpr std::string_view lift = "lift";
/// Of any task but `describe`, where the run's statistics are federated: float64 [2, C], mean and deviation of each
/// channel, by which the client normalises its samples from then on.
inline constexpr std::string_view normalisation = "normalisation";
}  // namespace input

/// What schema an input has. Where both are empty, it is the federated model's.
struct Form {
  std::optional<learn::ModelSpec> model;   ///< A model of this spec.
  std::vector<learn::TensorSpec> tensors;  ///< Just these. Not beside `model`.
};
std::string to_json_text(const Form& form);
/// Throws Error(protocol) where the text is no form, or the tensors are beyond what a client takes (2^40 bytes in all,
/// 8 dimensions each, no name twice).
Form form_from_json_text(const std::string& text);

struct TrainSettings {
  std::int64_t round = 0;
  /// The last round whose result of this client is in the model; 0: none. What the client keeps from round to round
  /// counts only up to there.
  std::int64_t counted_round = 0;
};
std::string to_json_text(const TrainSettings& settings);
std::string to_json_text(const learn::KdSetting& setting);
/// Throw Error(protocol), naming key and bounds.
TrainSettings train_settings_from_json_text(const std::string& text);
learn::KdSetting kd_setting_from_json_text(const std::string& text);

/// How a client came by its pre-trained model.
struct Pretraining {
  bool is_reused = false;  ///< Taken from the client's store.
  double seconds = 0;      ///< From receiving the task to the model being ready, as first trained.
  std::int64_t num_epochs = 0, best_epoch = 0;
};
std::string to_json_text(const Pretraining& figures);
/// Throws Error(protocol), naming key and bounds.
Pretraining pretraining_from_json_text(const std::string& text);

struct HeadSumSettings {
  std::int64_t min_samples = 1;  ///< Classes of which the client has fewer samples are left out of the sum.
  bool evaluates = false;        ///< The head is measured on the held-out samples, too.
  bool counts_scores = false;    ///< Then with learn::ScoreCounts.
};
std::string to_json_text(const HeadSumSettings& settings);
/// Throws Error(protocol), naming key and bounds.
HeadSumSettings head_sum_settings_from_json_text(const std::string& text);

struct HeadSumFigures {
  std::int64_t num_samples = 0;               ///< In the sum.
  std::optional<learn::Evaluation> held_out;  ///< Of the head, where that was asked for.
};
std::string to_json_text(const HeadSumFigures& figures);
/// Throws Error(protocol) where the numbers cannot be of `num_examples` training samples, or as
/// evaluation_from_json_text() does.
HeadSumFigures head_sum_figures_from_json_text(const std::string& text, std::int64_t num_classes,
                                               std::int64_t num_examples, std::uint64_t num_held_out);

struct DescribeFigures {
  std::int64_t num_samples = 0;  ///< That are described; 0: the client has too few to say anything of them.
  bool has_range = false;        ///< The least and greatest values are in the state.
};
std::string to_json_text(const DescribeFigures& figures);
/// Throws Error(protocol) where the numbers cannot be of `num_examples` training samples.
DescribeFigures describe_figures_from_json_text(const std::string& text, std::int64_t num_examples);

struct AnswerSettings {
  double temperature = 1;
  std::int64_t bits = 16;         ///< Of learn::answer_widths.
  bool weighs_by_density = true;  ///< Each sample's answers count by learn::Density::bounded; else 1.
  /// The client's training samples over this, at most 1, are a factor of its answers; 0: no factor.
  std::int64_t most_examples = 0;
};
std::string to_json_text(const AnswerSettings& settings);
/// Throws Error(protocol), naming key and bounds.
AnswerSettings answer_settings_from_json_text(const std::string& text);

/// What a silo's people hear of a round.
struct KeepSettings {
  std::int64_t round = 0;
  std::int64_t num_rounds = 0;
  bool is_best = false;                ///< The best so far by the run's validation.
  std::vector<std::string> took_part;  ///< Clients whose updates are in the model, by name.
};
std::string to_json_text(const KeepSettings& settings);
/// Throws Error(protocol), naming key and bounds.
KeepSettings keep_settings_from_json_text(const std::string& text);

struct EvaluateSettings {
  bool counts_scores = false;  ///< Figures with learn::ScoreCounts are wanted.
  bool by_silo = false;        ///< The server asks whether it may record the figures as this client's.
};
/// Empty where nothing is asked for: so a client is asked that knows no such settings.
std::string to_json_text(const EvaluateSettings& settings);
/// Throws Error(protocol), naming the key.
EvaluateSettings evaluate_settings_from_json_text(const std::string& text);

struct EvaluationFigures {
  learn::Evaluation counts;
  bool is_shown = false;  ///< The server may record them as this client's, not in a sum alone.
};
/// An infinite loss, of a model that diverged, stands as `diverged`: JSON has no such number. Areas without error do
/// not travel. Where the text would be longer than a result may be, the bins of scores are joined.
std::string to_json_text(const EvaluationFigures& figures);
std::string to_json_text(const learn::Evaluation& counts);
/// Throws Error(protocol) where the counts cannot be of `num_classes` classes and at most `num_held_out` samples: more
/// right than total or predicted ones in a class, other sums of total and predicted, a loss below 0 or of nothing,
/// score counts of other samples than those; and where a metric of the client's own has no name, value or weight.
EvaluationFigures evaluation_figures_from_json_text(const std::string& text, std::int64_t num_classes,
                                                    std::uint64_t num_held_out);
learn::Evaluation evaluation_from_json_text(const std::string& text, std::int64_t num_classes,
                                            std::uint64_t num_held_out);

}  // namespace headstart::plan
