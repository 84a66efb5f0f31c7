#include "shared/learn/distill/distill_options.hpp"

#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/learn/distill/dissimilarity.hpp"

namespace headstart::learn {

namespace {

std::string measures_text() {
  std::string text;
  for (const Dissimilarity* row : dissimilarities()) {
    text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", row->name, row->words);
  }
  return text;
}

}  // namespace

void declare_fields(Fields& fields, const std::string& prefix, DistillOptions& options) {
  fields.number(prefix + ".temperature", options.temperature, "Softmax temperature T of teachers and student.",
                {.min = 0.05, .max = 100});
  fields.number(prefix + ".alpha", options.alpha,
                "Weight of the distillation term where the transfer set has labels; cross-entropy has 1 - alpha.",
                {.min = 0, .max = 1});
  fields.word(prefix + ".measure", options.measure,
              "How far the student is from its teachers: " + measures_text() + ". ce and kl have the same gradient.",
              dissimilarity_words());
  fields.choice(
      prefix + ".strength", options.strength,
      "plain: the measure's formula. matched: times the factor (td 2, js and sed 4) that makes it as strong as "
      "kl where the student is near its teachers.",
      Choices<MeasureStrength>(strength_words));
  fields.choice(prefix + ".reduction", options.reduction,
                "mean: the distillation term is a mean over the batch, as cross-entropy is. published: it is the sum, "
                "without T^2 whatever scale_by_t2 says, as in the programs of Molo et al.; a batch of 32 makes it 32 "
                "times as strong.",
                Choices<BatchReduction>(reduction_words));
  fields.flag(prefix + ".scale_by_t2", options.scale_by_t2,
              "Multiply the distillation term by T^2, so that its gradient keeps its size at any T.");
  fields.choice(
      prefix + ".average", options.average,
      "What is averaged over the teachers: their probabilities, or their logits (FedDF). none: nothing, and the "
      "student's dissimilarities to each teacher are added up.",
      Choices<TeacherAverage>(average_words));
  fields.flag(prefix + ".standardise", options.standardise,
              "Standardise each sample's logits, teachers' and student's, before they are softened.");
  fields.flag(
      prefix + ".normalise", options.normalise,
      "Have the targets sum to 1 over the classes; weights by class alone do not. Of measures other than ce and kl "
      "they always do.");
  fields.integer(prefix + ".epochs", options.epochs, "Passes over the transfer set.", {.min = 1, .max = 100000});
  fields.integer(prefix + ".batch_size", options.batch_size, "Samples a step.", {.min = 1, .max = 65536});
  declare_fields(fields, prefix, options.optimizer);
}

bool is_of_equation_6(const DistillOptions& options) {
  return dissimilarity_named(options.measure).is_linear && options.strength == MeasureStrength::plain &&
         options.reduction == BatchReduction::mean && options.average == TeacherAverage::probabilities &&
         !options.standardise && !options.normalise;
}

void check(const DistillOptions& options, const std::string& prefix, bool has_equal_weights,
           const std::string& advice) {
  const Dissimilarity& measure = dissimilarity_named(options.measure);
  const bool is_sum = options.average == TeacherAverage::none;
  const auto refuse = [](const std::string& sentence) { throw Error(Errc::usage, sentence); };
  if (measure.to_all != nullptr && !is_sum) {
    refuse(fmt::format("{0}.measure={1} compares the student with each of its teachers: it needs {0}.average=none",
                       prefix, measure.name));
  }
  if (is_sum && options.normalise) {
    refuse(fmt::format("{0}.normalise shapes an average of teachers, and {0}.average=none takes none", prefix));
  }
  if (is_sum && !measure.is_linear && !has_equal_weights) {
    refuse(fmt::format("{0}.average=none with {0}.measure={1} cannot weigh teachers by class: {2}", prefix,
                       measure.name, advice));
  }
}

}  // namespace headstart::learn
