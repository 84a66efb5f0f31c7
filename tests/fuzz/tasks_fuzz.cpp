// The JSON inside Task, Input and Result: settings and forms from a server, figures from a client. Promised: what is
// accepted reads the same after it was written, is within the bounds that are said of it, and a form is a schema that
// a client may take memory for; what is said of text that is refused is short and printable.
#include "shared/plan/tasks.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace headstart;

constexpr std::int64_t num_classes = 3;
constexpr std::uint64_t num_held_out = 100;

void read_form(const std::string& text) {
  const plan::Form form = plan::form_from_json_text(text);
  const std::string written = plan::to_json_text(form);
  fuzz::require(plan::to_json_text(plan::form_from_json_text(written)) == written, "a form reads as written");
  fuzz::require(!form.model || form.tensors.empty(), "a form is a model or tensors");
  if (form.tensors.empty()) return;
  const learn::Schema schema(form.tensors);
  fuzz::require(schema.num_bytes() <= std::uint64_t{1} << 40, "a form is within what a client takes");
}

void read_train_settings(const std::string& text) {
  const plan::TrainSettings settings = plan::train_settings_from_json_text(text);
  fuzz::require(settings.round >= 1 && settings.counted_round >= 0, "rounds are within their bounds");
  const std::string written = plan::to_json_text(settings);
  fuzz::require(plan::to_json_text(plan::train_settings_from_json_text(written)) == written,
                "settings read as written");
}

void read_kd_setting(const std::string& text) {
  const learn::KdSetting setting = plan::kd_setting_from_json_text(text);
  fuzz::require(setting.temperature > 0 && setting.alpha >= 0 && setting.alpha <= 1, "a setting is within its bounds");
  fuzz::require(plan::kd_setting_from_json_text(plan::to_json_text(setting)) == setting, "a setting reads as written");
}

void read_pretraining(const std::string& text) {
  const plan::Pretraining figures = plan::pretraining_from_json_text(text);
  fuzz::require(figures.seconds >= 0 && figures.num_epochs >= 0, "figures are within their bounds");
  const std::string written = plan::to_json_text(figures);
  fuzz::require(plan::to_json_text(plan::pretraining_from_json_text(written)) == written, "figures read as written");
}

void read_head_sum_settings(const std::string& text) {
  const plan::HeadSumSettings settings = plan::head_sum_settings_from_json_text(text);
  fuzz::require(settings.min_samples >= 1, "a least count is at least 1");
  const std::string written = plan::to_json_text(settings);
  fuzz::require(plan::to_json_text(plan::head_sum_settings_from_json_text(written)) == written,
                "settings of a sum read as written");
}

void read_head_sum_figures(const std::string& text) {
  constexpr std::int64_t num_examples = 500;
  const auto read = [](const std::string& from) {
    return plan::head_sum_figures_from_json_text(from, num_classes, num_examples, num_held_out);
  };
  const plan::HeadSumFigures figures = read(text);
  fuzz::require(figures.num_samples >= 1 && figures.num_samples <= num_examples, "a sum is of samples that there are");
  const std::string written = plan::to_json_text(figures);
  fuzz::require(plan::to_json_text(read(written)) == written, "figures of a sum read as written");
}

void read_describe_figures(const std::string& text) {
  constexpr std::int64_t num_examples = 500;
  const plan::DescribeFigures figures = plan::describe_figures_from_json_text(text, num_examples);
  fuzz::require(figures.num_samples >= 0 && figures.num_samples <= num_examples, "samples described are there");
  const std::string written = plan::to_json_text(figures);
  fuzz::require(plan::to_json_text(plan::describe_figures_from_json_text(written, num_examples)) == written,
                "figures of a description read as written");
}

void read_keep_settings(const std::string& text) {
  const plan::KeepSettings settings = plan::keep_settings_from_json_text(text);
  fuzz::require(plan::to_json_text(plan::keep_settings_from_json_text(plan::to_json_text(settings))) ==
                    plan::to_json_text(settings),
                "settings of keep read as written");
}

void read_answer_settings(const std::string& text) {
  const plan::AnswerSettings settings = plan::answer_settings_from_json_text(text);
  fuzz::require(settings.temperature > 0 && settings.most_examples >= 0 && (settings.bits == 12 || settings.bits == 16),
                "settings of answers are within their bounds");
  const std::string written = plan::to_json_text(settings);
  fuzz::require(plan::to_json_text(plan::answer_settings_from_json_text(written)) == written,
                "settings of answers read as written");
}

void read_evaluate_settings(const std::string& text) {
  const std::string written = plan::to_json_text(plan::evaluate_settings_from_json_text(text));
  fuzz::require(plan::to_json_text(plan::evaluate_settings_from_json_text(written)) == written,
                "settings of an evaluation read as written");
}

void require_sound_scores(const learn::Evaluation& counts) {
  if (!counts.scores) return;
  fuzz::require(counts.scores->calibration_error() >= 0 && counts.scores->calibration_error() <= 1,
                "a calibration error is a share");
  for (std::int64_t c = 0; c < num_classes; ++c) {
    const auto area = counts.scores->auc(c);
    fuzz::require(!area || (area->value >= 0 && area->value <= 1 && area->error >= 0 && area->error <= 0.5),
                  "an AUC is a share, and off by a half at most");
  }
}

void read_evaluation(const std::string& text) {
  const plan::EvaluationFigures figures = plan::evaluation_figures_from_json_text(text, num_classes, num_held_out);
  const learn::Evaluation& counts = figures.counts;
  require_sound_scores(counts);
  fuzz::require(counts.num_samples() <= static_cast<std::int64_t>(num_held_out), "counts are of what was announced");
  fuzz::require(counts.accuracy() >= 0 && counts.accuracy() <= 1, "an accuracy is a share");
  const std::string written = plan::to_json_text(figures);
  const auto read = plan::evaluation_figures_from_json_text(written, num_classes, num_held_out);
  fuzz::require(plan::to_json_text(read) == written, "counts read as written");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(fuzz::text_of(data, size));
  for (const auto read : {read_form, read_train_settings, read_kd_setting, read_pretraining, read_evaluate_settings,
                          read_evaluation, read_head_sum_settings, read_head_sum_figures, read_describe_figures,
                          read_answer_settings, read_keep_settings}) {
    fuzz::offer(text, read);
  }
  return 0;
}
