#include "server/config/consolidation_options.hpp"

namespace headstart::server {

void declare_fields(Fields& fields, const std::string& prefix, ConsolidationOptions& options) {
  fields.group(prefix, "How pre-trained models are distilled into one, for start.model kd");
  fields.choice(
      prefix + ".student", options.student,
      "What the student starts from: the best or the worst pre-trained model by the validation source, or the "
      "untrained global model.",
      Choices<StudentStart>(student_words));
  fields.choice(prefix + ".weights", options.weighting,
                "Teacher weights: by class accuracy (adaptive), by class precision, equal, or by sample (experts): a "
                "silo counts by its number of samples, and by how much the sample is like its own.",
                Choices<learn::TeacherWeighting>(learn::weighting_words));
  fields.choice(prefix + ".transfer", options.transfer,
                "Where distillation happens: on the large or the small public unlabeled set at the server, or on the "
                "student's own data at its client, which is then sent the other clients' models.",
                Choices<TransferSet>(transfer_words));
  fields.choice(prefix + ".exchange", options.exchange,
                "What silos give for it on a public set. models: their pre-trained models. answers: they are sent the "
                "public samples, and return their answers in fixed point, which the server adds up; weights are then "
                "experts or equal.",
                Choices<TeachingExchange>(exchange_words));
  fields.choice(prefix + ".target", options.target,
                "Who answers for the public samples: the pre-trained models (teachers), or a head fitted to all silos' "
                "samples by sums: over random features of the student's features (lifted), or over the features of "
                "all models that silos share with peers (joint: every silo is sent them).",
                Choices<TeachingTarget>(target_words));
  fields.choice(prefix + ".density", options.density,
                "weights experts: the density ratio of own against public samples, or its bounded form, which answers "
                "in fixed point always have.",
                Choices<learn::Density>(learn::density_words));
  fields.integer(prefix + ".answer_bits", options.answer_bits, "exchange answers: bits of an answer, 12 or 16.",
                 {12, 16});
  fields.integer(prefix + ".lift", options.lift, "target lifted: random features.", {1, 8192});
  fields.integer(prefix + ".projection", options.projection,
                 "target joint: directions that the features are projected onto, found on the public set; 0: all "
                 "features, whose second moments each silo then sends.",
                 {0, 8192});
  fields.choice(prefix + ".keep", options.keep, "State kept: of the last epoch, or the best by the validation source.",
                Choices<KeptState>(kept_words));
  fields.flag(prefix + ".gate", options.gate,
              "Start from the seed only where the validation source rates it above the best local model.");
  fields.flag(prefix + ".divide_label_prior", options.divides_label_prior,
              "Divide out of each teacher's probabilities how often it answers with a class on validation data; on "
              "public sets.");
  fields.choice(prefix + ".tune", options.tune,
                "Choose temperature and alpha by the validation source: none (they are as set), auto (a search with "
                "some 7 consolidations in place of one), or grid (all settings of consolidation.grid).",
                Choices<SettingChoice>(choice_words));
  learn::declare_fields(fields, prefix + ".grid", options.grid);
}

std::unique_ptr<learn::SettingSearch> search_of(const ConsolidationOptions& options, std::int64_t epochs) {
  const bool has_labels = options.transfer == TransferSet::student;
  switch (options.tune) {
    case SettingChoice::automatic:
      return learn::automatic_search(options.grid, epochs, has_labels);
    case SettingChoice::grid:
      return learn::grid_search(options.grid, epochs, has_labels);
    case SettingChoice::as_set:
      break;
  }
  return nullptr;
}

}  // namespace headstart::server
