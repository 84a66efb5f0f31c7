// The settings of a distillation.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "shared/base/fields.hpp"
#include "shared/learn/train/train.hpp"

namespace headstart::learn {

/// What is averaged over the teachers.
enum class TeacherAverage {
  probabilities,  ///< As in equation 6.
  logits,         ///< FedDF (Lin et al. 2020): softmax(sum_k v[k,c] z_k[n,c] / T), v[k,c] = w[k,c] / sum_j w[j,c], z_k
                  ///< less its mean over the classes.
  none,           ///< Nothing: the dissimilarities to each teacher are added up.
};
inline constexpr std::pair<TeacherAverage, std::string_view> average_words[] = {
    {TeacherAverage::probabilities, "probabilities"},
    {TeacherAverage::logits, "logits"},
    {TeacherAverage::none, "none"}};

/// How strong the dissimilarity is: as its formula has it, or times the factor that makes it as strong as kl where the
/// student is near its teachers (Dissimilarity::matched).
enum class MeasureStrength { plain, matched };
inline constexpr std::pair<MeasureStrength, std::string_view> strength_words[] = {
    {MeasureStrength::plain, "plain"}, {MeasureStrength::matched, "matched"}};

/// How a batch's dissimilarities become one number.
enum class BatchReduction {
  mean,       ///< Their mean, like that of the labels' cross-entropy; times T^2 with scale_by_t2.
  published,  ///< As in the programs of Molo et al.: their sum, without T^2 whatever scale_by_t2 says, beside the
              ///< *mean* of the labels' cross-entropy. With a batch of B the distillation term then has the share alpha
              ///< B / (1 - alpha + alpha B), and a step is longer by 1 - alpha + alpha B.
};
inline constexpr std::pair<BatchReduction, std::string_view> reduction_words[] = {
    {BatchReduction::mean, "mean"}, {BatchReduction::published, "published"}};

/// Knowledge distillation: (1 - alpha) CE(y, p_s) + alpha * distillation term (distillation_objective). Without labels
/// the distillation term stands alone and alpha has no effect.
struct DistillOptions {
  std::string measure = "ce";  ///< Of dissimilarity_words().
  MeasureStrength strength = MeasureStrength::plain;
  BatchReduction reduction = BatchReduction::mean;
  double temperature = 1;
  double alpha = 0.5;  ///< Weight of the distillation term where there are labels.
  bool scale_by_t2 = true;
  TeacherAverage average = TeacherAverage::probabilities;
  bool standardise = false;  ///< Logits of teachers and student, in the distillation term.
  bool normalise = false;    ///< Targets that sum to 1 over the classes; without it those of ce and kl alone may not.
  std::int64_t epochs = 30;
  std::int64_t batch_size = 32;
  OptimizerOptions optimizer{.kind = OptimizerKind::adam, .lr = 1e-3, .weight_decay = 1e-4};
};
void declare_fields(Fields& fields, const std::string& prefix, DistillOptions& options);

/// Whether the distillation term is that of equations 6 and 7 of Alballa & Canini, whatever T, alpha and the factor
/// T^2.
bool is_of_equation_6(const DistillOptions& options);

/// Throws Error(usage), in one sentence with the keys below `prefix`, where settings exclude each other.
/// `has_equal_weights`: all teachers count alike in every class; else `advice` says how they would.
void check(const DistillOptions& options, const std::string& prefix, bool has_equal_weights = true,
           const std::string& advice = "");

}  // namespace headstart::learn
