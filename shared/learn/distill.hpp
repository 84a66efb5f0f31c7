// Multi-teacher knowledge distillation: class weights, soft targets, losses, and the consolidation loop.
// Sources: Alballa & Canini 2024 (arXiv 2402.14922), equations 6 and 7; Lin et al. 2020 (FedDF).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>

#include "shared/base/fields.hpp"
#include "shared/learn/train.hpp"

namespace headstart::learn {

class EpochLoop;

/// adaptive: by class accuracy, that is recall (equation 6). precision: the same formula over class precision (decided
/// here): recall rewards a teacher for answering with its own class whatever it sees; precision does not.
enum class TeacherWeighting { adaptive, precision, equal };
inline constexpr std::pair<TeacherWeighting, std::string_view> weighting_words[] = {
    {TeacherWeighting::adaptive, "adaptive"},
    {TeacherWeighting::precision, "precision"},
    {TeacherWeighting::equal, "equal"}};

/// Class-wise teacher weights  w[k,c] = A[k,c] / (A_s[c] + sum_j A_j[c]);  1/K where the denominator is 0.
///   teachers: [K, C] in 0..1, the rates (recall or precision) of those who teach (the student's frozen copy may be
///             among them, with the student's rate as its numerator).
///   others:   [M, C] in 0..1, the accuracies of the other clients, that the sum runs over.
///   student:  [C] in 0..1; zeros for an untrained student.
/// Returns float64 [K, C].
Tensor adaptive_weights(const Tensor& teachers, const Tensor& others, const Tensor& student);

/// What adaptive_weights() takes of one model: recall or, for TeacherWeighting::precision, precision per class: float64
/// [C].
Tensor class_rates(const Evaluation& rating, TeacherWeighting weighting);

/// 1/K everywhere: float64 [K, C].
Tensor equal_weights(std::int64_t num_teachers, std::int64_t num_classes);

/// Of teachers, those that can teach: models that diverged, with finite weights, may have logits that are not finite.
struct SoundTeachers {
  Tensor logits;   ///< [K', N, C].
  Tensor weights;  ///< [K', C]: what counted for the others goes, by class and in proportion, to these.
  std::vector<std::int64_t> dropped;  ///< Of the K, by index.
};
/// Shapes as soft_targets() has them. Throws Error(run_failed) where none is left.
SoundTeachers sound_teachers(const Tensor& logits, const Tensor& weights);

/// q[n,c] = sum_k w[k,c] softmax(z_k[n] / T)[c]: all teachers in one target per sample, not normalised.
/// logits: [K, N, C]; weights: [K, C]. Returns the type of `logits`, [N, C].
Tensor soft_targets(const Tensor& logits, const Tensor& weights, double temperature);

/// What is averaged over the teachers.
enum class TeacherAverage {
  probabilities,  ///< As in equation 6.
  logits,         ///< FedDF (Lin et al. 2020): softmax(sum_k v[k,c] z_k[n,c] / T), v[k,c] = w[k,c] / sum_j w[j,c], z_k
                  ///< less its mean over the classes.
};
inline constexpr std::pair<TeacherAverage, std::string_view> average_words[] = {
    {TeacherAverage::probabilities, "probabilities"}, {TeacherAverage::logits, "logits"}};

/// Logits minus their mean over the classes, over their standard deviation (of n - 1) plus 1e-7: Sun et al. 2024,
/// "Logit Standardization in Knowledge Distillation". [..., C].
Tensor standardised(const Tensor& logits);

/// The teacher's label prior divided out of its probabilities: z[c] - log pi[c] (logit adjustment, Menon et al. 2021),
/// pi[c] = (predicted[c] + 1) / (n + C): how often the teacher answers with a class, by the rule of succession.
/// logits: [N, C]; rating: of the teacher. Dividing it out of recall instead, in the weights, gives precision, up to
/// what cancels: pi[c] precision[c] = recall[c] share[c].
Tensor without_label_prior(const Tensor& logits, const Evaluation& rating);

/// T^2 * mean over the batch of sum_k sum_c w[k,c] p_k[c] log(p_k[c] / p_s[c]) up to a constant in the student:
/// T^2 * mean_n( -sum_c q[n,c] log softmax(z_s[n] / T)[c] ). The gradient is that of the full loss; the constant is
/// left out as training never needs it. student_logits: [B, C]; targets: [B, C]. Returns a scalar.
Tensor distillation_loss(const Tensor& student_logits, const Tensor& targets, double temperature,
                         bool scale_by_t2 = true);

/// Vanilla KD: (1 - alpha) CE(y, p_s) + alpha * distillation_loss. Mean over the batch, sum over classes.
/// Without labels the distillation term stands alone and alpha has no effect.
struct DistillOptions {
  double temperature = 1;
  double alpha = 0.5;  ///< Weight of the distillation term where there are labels.
  bool scale_by_t2 = true;
  TeacherAverage average = TeacherAverage::probabilities;
  bool standardise = false;  ///< Logits of teachers and student, in the distillation term.
  bool normalise = false;    ///< Targets that sum to 1 over the classes.
  std::int64_t epochs = 30;
  std::int64_t batch_size = 32;
  OptimizerOptions optimizer{.kind = OptimizerKind::adam, .lr = 1e-3, .weight_decay = 1e-4};
};
void declare_fields(Fields& fields, const std::string& prefix, DistillOptions& options);

/// The targets that `options` ask for: temperature, average, standardise, normalise. Shapes as above.
Tensor soft_targets(const Tensor& logits, const Tensor& weights, const DistillOptions& options);

/// Vanilla KD on a batch. student_logits, targets: [B, C]; labels: int64 [B]. Returns a scalar.
Tensor distillation_objective(const Tensor& student_logits, const Tensor& targets, const std::optional<Tensor>& labels,
                              const DistillOptions& options);

/// KL(q || p) of two categorical distributions given as logits, softened by T: sum over classes, mean over the batch.
Tensor kl_divergence(const Tensor& target_logits, const Tensor& logits, double temperature);

/// A distillation under way. However its epochs are divided among calls of advance(), the student ends the same, bit
/// for bit. Borrows the student, whose parameters nobody else may change meanwhile; evaluating it in between is fine.
class Distiller {
 public:
  /// `targets`: [n, C], a row for each sample of `transfer`. Samples with labels use the vanilla objective, samples
  /// without the distillation term alone. Fresh optimiser; orders from seed.child(epoch), from 0. `options.epochs` is
  /// what progress refers to. Throws Error(data): no samples; Error(usage): a batch size below 1.
  Distiller(Model& student, Samples transfer, const Tensor& targets, const DistillOptions& options, Seed seed);
  ~Distiller();
  Distiller(const Distiller&) = delete;
  Distiller& operator=(const Distiller&) = delete;

  /// `epochs` more passes, the student in training mode; its last state stays in it. Returns the mean loss per sample
  /// of the last one. `after_epoch`, when given, is called after each epoch with its number from 1 (a kept checkpoint,
  /// a log line). Throws Error(run_failed) when the loss is not finite, Error(interrupted) when `stop` is requested.
  double advance(std::int64_t epochs, const ProgressCallback& progress = {}, std::stop_token stop = {},
                 const std::function<void(std::int64_t)>& after_epoch = {});
  [[nodiscard]] std::int64_t num_epochs() const;

 private:
  Model& student_;
  Samples transfer_;
  Tensor targets_;
  DistillOptions options_;
  Seed seed_;
  Optimizer optimizer_;
  std::unique_ptr<EpochLoop> loop_;
};

/// Distils `targets` into `student`, options.epochs from the first to the last: see Distiller.
double distill(Model& student, const Samples& transfer, const Tensor& targets, const DistillOptions& options, Seed seed,
               const ProgressCallback& progress = {}, std::stop_token stop = {},
               const std::function<void(std::int64_t)>& after_epoch = {});

/// BatchNorm statistics of an averaged model, re-estimated by one pass over `x` in training mode without gradients:
/// the mean over the batches of each batch's mean and variance (PyTorch's momentum=None), whatever momentum the layers
/// have, scripted models included. The model ends in evaluation mode. Nothing happens to a model without buffers named
/// running_mean or running_var. A model that draws globally needs its lease taken by the caller. Throws
/// Error(interrupted) when `stop` is requested; the statistics are then of no use.
void reestimate_statistics(Model& model, const Tensor& x, std::int64_t batch_size = 256, std::stop_token stop = {},
                           const ProgressCallback& progress = {});

/// Probabilities of the ensemble: equal  mean_k p_k;  class-weighted  sum_k w[k,c] p_k[c].
/// logits [K, N, C], weights [K, C]. Returns [N, C], unnormalised for class weights (argmax needs no more).
Tensor ensemble_scores(const Tensor& logits, const Tensor& weights);

}  // namespace headstart::learn
