// Counts that evaluation returns, and what is computed from them.
#pragma once

#include <cstdint>
#include <stop_token>
#include <vector>

#include "shared/learn/core/progress.hpp"
#include "shared/learn/data/data_set.hpp"
#include "shared/learn/models/model.hpp"

namespace headstart::learn {

/// Right, total and predicted samples per class and the summed loss: additive over disjoint sets, so a federated
/// evaluation is the sum of the clients' counts.
struct Evaluation {
  std::vector<std::int64_t> correct;    ///< [C] Right, by true class.
  std::vector<std::int64_t> total;      ///< [C] Samples, by true class.
  std::vector<std::int64_t> predicted;  ///< [C] Samples, by the class they were taken for.
  double loss_sum = 0;                  ///< Sum over samples of cross-entropy; infinite where a logit is no number.

  /// Zero counts: where a sum begins.
  static Evaluation of_none(std::int64_t num_classes);
  [[nodiscard]] std::int64_t num_samples() const;
  [[nodiscard]] double accuracy() const;  ///< 0..1; 0 without samples.
  [[nodiscard]] double loss() const;      ///< Mean over samples; 0 without samples.
  /// Recall per class, 0..1; 0 for a class without samples.
  [[nodiscard]] std::vector<double> class_accuracy() const;
  /// *Global* accuracy: the mean recall of the classes that have samples, 0..1; 0 where none has.
  [[nodiscard]] double mean_class_accuracy() const;
  /// *Own* accuracy: sum_c share_c recall_c, the accuracy to be expected on data with these many samples of each class,
  /// 0..1. `class_counts`: [C], as a client's training samples have them. Classes without samples here are left out of
  /// the shares; 0 where none is left. Throws Error(internal) for another number of classes.
  [[nodiscard]] double accuracy_on(const std::vector<std::int64_t>& class_counts) const;
  /// Precision per class, above 0 and below 1: how often the class is right where it is predicted, by the rule of
  /// succession, (right + 1) / (predicted + C), so that a few lucky answers do not make an expert.
  [[nodiscard]] std::vector<double> class_precision() const;
  Evaluation& operator+=(const Evaluation& other);  ///< Throws Error(internal) where the class counts differ.
};

/// `logits` [n, C] against labels int64 [n].
Evaluation evaluate_logits(const Tensor& logits, const Tensor& labels, std::int64_t num_classes);

/// Model in evaluation mode, no gradients, batches of `batch_size`. Restores training mode off. Throws
/// Error(interrupted) when `stop` is requested.
Evaluation evaluate(Model& model, const Samples& samples, std::int64_t num_classes, std::int64_t batch_size = 256,
                    std::stop_token stop = {}, const ProgressCallback& progress = {});

/// The same of each head of the model, from one pass over the samples.
std::vector<Evaluation> evaluate_heads(Model& model, const Samples& samples, std::int64_t num_classes,
                                       std::int64_t batch_size = 256, std::stop_token stop = {},
                                       const ProgressCallback& progress = {});

/// Logits of all samples: [n, C] on the CPU, float32. Evaluation mode, no gradients. Throws as evaluate() does.
Tensor logits_of(Model& model, const Tensor& x, std::int64_t batch_size = 256, std::stop_token stop = {},
                 const ProgressCallback& progress = {});

/// The change of class accuracy (0..1) from `before` to `after`, mean over the classes that have samples:
/// learning = mean max(0, after - before), forgetting = mean max(0, before - after).
struct Change {
  double learning = 0;
  double forgetting = 0;
};
/// Throws Error(internal) for evaluations over different samples.
Change change_between(const Evaluation& before, const Evaluation& after);

}  // namespace headstart::learn
