#include "shared/learn/distill/distill_options.hpp"

namespace headstart::learn {

void declare_fields(Fields& fields, const std::string& prefix, DistillOptions& options) {
  fields.number(prefix + ".temperature", options.temperature, "Softmax temperature T of teachers and student.",
                {.min = 0.05, .max = 100});
  fields.number(prefix + ".alpha", options.alpha,
                "Weight of the distillation term where the transfer set has labels; cross-entropy has 1 - alpha.",
                {.min = 0, .max = 1});
  fields.flag(prefix + ".scale_by_t2", options.scale_by_t2,
              "Multiply the distillation term by T^2, so that its gradient keeps its size at any T.");
  fields.choice(prefix + ".average", options.average,
                "What is averaged over the teachers: their probabilities, or their logits (FedDF).",
                Choices<TeacherAverage>(average_words));
  fields.flag(prefix + ".standardise", options.standardise,
              "Standardise each sample's logits, teachers' and student's, before they are softened.");
  fields.flag(prefix + ".normalise", options.normalise,
              "Have the targets sum to 1 over the classes; weights by class alone do not.");
  fields.integer(prefix + ".epochs", options.epochs, "Passes over the transfer set.", {.min = 1, .max = 100000});
  fields.integer(prefix + ".batch_size", options.batch_size, "Samples a step.", {.min = 1, .max = 65536});
  declare_fields(fields, prefix, options.optimizer);
}

}  // namespace headstart::learn
