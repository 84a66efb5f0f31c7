// Teacher weights by class, from ratings that need not be over the same samples.
#pragma once

#include <optional>
#include <vector>

#include "shared/learn/distill/distiller.hpp"
#include "shared/learn/train/evaluation.hpp"

namespace headstart::server {

/// learn::adaptive_weights of the ratings' class rates: float64 [teaching, classes]. `others`: the teachers but for the
/// student's copy; `student`: of the model that the student starts from, empty where it is untrained. Under federated
/// validation a model's own client does not count for it, so that a class that this client alone holds is not measured
/// for this one model: there all teachers count alike, as no number says that the others know the class better.
/// A teacher that took every sample for the same class has no weight, unless all do: weights by class would have it
/// fill the target of every sample with its class, where nobody else knows that (silos of a single class).
learn::Tensor class_weights(const std::vector<learn::Evaluation>& teaching,
                            const std::vector<learn::Evaluation>& others,
                            const std::optional<learn::Evaluation>& student, learn::TeacherWeighting weighting);

}  // namespace headstart::server
