// Which distillation to use, for what a user has: the decision tree of the paper, or the rows of a study.
// Source: Alballa & Canini 2024 (arXiv 2402.14922), section V; its figure is rebuilt from the text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "experiments/lab/pair_settings.hpp"

namespace headstart::lab {

enum class TeacherStrength { stronger, weaker, unknown };
inline constexpr std::pair<TeacherStrength, std::string_view> strength_words[] = {
    {TeacherStrength::stronger, "stronger"},
    {TeacherStrength::weaker, "weaker"},
    {TeacherStrength::unknown, "unknown"}};

enum class ClassBalance { balanced, skewed };
inline constexpr std::pair<ClassBalance, std::string_view> balance_words[] = {{ClassBalance::balanced, "balanced"},
                                                                              {ClassBalance::skewed, "skewed"}};

/// What a user has.
struct Situation {
  bool has_validation = false;        ///< Labeled samples to choose settings by.
  std::int64_t student_samples = 0;   ///< Labeled samples of the student that may be distilled on; 0: none.
  std::int64_t public_unlabeled = 0;  ///< Public samples without labels.
  std::int64_t public_labeled = 0;
  TeacherStrength teacher = TeacherStrength::unknown;
  ClassBalance balance = ClassBalance::skewed;  ///< Of classes within a participant's data.
};
void declare_fields(Fields& fields, Situation& situation);

struct Advice {
  std::optional<PairMethod> method;  ///< Empty: none of those that can be used helps.
  PairTransfer transfer = PairTransfer::student;
  bool copy_teaches = false;          ///< The student's frozen copy is a second teacher.
  std::optional<double> temperature;  ///< Empty: the method has none, or a search chooses it.
  std::optional<double> alpha;        ///< Likewise, or the transfer set has no labels.
  std::vector<std::string> reasons;   ///< Sentences.
  std::vector<std::string> rows;      ///< Keys of the cells that it rests on; empty without a study.
  /// What a federation's server takes for it: "--set KEY=VALUE ...". Empty where there is nothing to set.
  std::string federation;
  std::string federation_note;  ///< Why there is no such line, or what it leaves out.
};

/// By the paper. Throws Error(usage) where there is nothing to distil on.
Advice advise(const Situation& situation);

/// By the rows of a study: of the methods and transfer sets that the user can use, the one with the largest mean gain
/// on validation data over pairs like the user's (strength of the teacher, balance of the partition), at least three of
/// them; no method where that gain is not above 0. Test data decide only where rows have no validation gain, which it
/// says. By the paper where the study has no such rows, and says so.
Advice advise(const Situation& situation, const std::vector<DoneCell>& cells);

/// As a person reads it.
std::string text_of(const Advice& advice);

}  // namespace headstart::lab
