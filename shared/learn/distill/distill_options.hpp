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
};
inline constexpr std::pair<TeacherAverage, std::string_view> average_words[] = {
    {TeacherAverage::probabilities, "probabilities"}, {TeacherAverage::logits, "logits"}};

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

}  // namespace headstart::learn
