// Computes one cell of a pair study.
#pragma once

#include <stop_token>

#include <nlohmann/json.hpp>

#include "experiments/lab/pair_settings.hpp"
#include "experiments/lab/participants.hpp"

namespace headstart::lab {

/// How a participant does alone: accuracy, class_accuracy, loss (test set), validation {accuracy, loss},
/// num_samples, classes (samples of each), epochs, model (SHA-256).
nlohmann::json measure_participant(Participants& participants, const PairCell& cell, std::stop_token stop);

/// Distils one participant's model into another's. All accuracies are 0..1, of the test set unless named otherwise:
///   accuracy, loss, class_accuracy     of the student afterwards (of the model that is kept, in mutual learning)
///   start, teacher                     accuracy of student and teacher before
///   gain, learning, forgetting         change of the student's accuracy; mean over classes of what was won and lost
///   validation                         {start, teacher, accuracy, loss}: by the validation samples
///   is_strong                          whether the teacher's accuracy is above the student's
///   temperature, alpha                 those distilled with; null where the method has none, alpha without labels
///   epochs                             all that was spent on students, a search's trials included
///   partner                            accuracy of the other model afterwards (mutual learning)
///   taught_by_teacher                  share of samples taught by the teacher (data partitioning)
///   trials                             of a search: temperature, alpha, epochs, validation_accuracy, validation_loss,
///                                      accuracy (grid only), curve (where asked for), in the order of trying
nlohmann::json distil_pair(Participants& participants, const PairCell& cell, std::stop_token stop);

}  // namespace headstart::lab
