// The settings of a consolidation: who distils what into whom, and where.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "shared/base/fields.hpp"
#include "shared/learn/distill/experts.hpp"
#include "shared/learn/distill/teacher_weights.hpp"
#include "shared/learn/tune/setting_search.hpp"

namespace headstart::server {

enum class StudentStart { best, worst, untrained };
inline constexpr std::pair<StudentStart, std::string_view> student_words[] = {
    {StudentStart::best, "best"}, {StudentStart::worst, "worst"}, {StudentStart::untrained, "untrained"}};

enum class TransferSet { public_large, public_small, student };
inline constexpr std::pair<TransferSet, std::string_view> transfer_words[] = {
    {TransferSet::public_large, "public"},
    {TransferSet::public_small, "public-small"},
    {TransferSet::student, "student"}};

enum class KeptState { last, best };
inline constexpr std::pair<KeptState, std::string_view> kept_words[] = {{KeptState::last, "last"},
                                                                        {KeptState::best, "best"}};

/// How temperature and alpha are chosen: as they are set, or by the validation source.
enum class SettingChoice { as_set, automatic, grid };
inline constexpr std::pair<SettingChoice, std::string_view> choice_words[] = {
    {SettingChoice::as_set, "none"}, {SettingChoice::automatic, "auto"}, {SettingChoice::grid, "grid"}};

/// What silos give for a consolidation on a public set.
enum class TeachingExchange {
  models,   ///< Their pre-trained models (or those of an architecture of their own, logits).
  answers,  ///< Their answers on the public samples, in fixed point; their sum is what teaches.
};
inline constexpr std::pair<TeachingExchange, std::string_view> exchange_words[] = {
    {TeachingExchange::models, "models"}, {TeachingExchange::answers, "answers"}};

/// Who answers for the public samples.
enum class TeachingTarget {
  teachers,  ///< The pre-trained models, weighted.
  lifted,    ///< A ridge head over random rectified features of the student's features, from sums over all silos.
  joint,     ///< A ridge head over the features of all models that silos share with peers, from sums over all silos.
};
inline constexpr std::pair<TeachingTarget, std::string_view> target_words[] = {
    {TeachingTarget::teachers, "teachers"}, {TeachingTarget::lifted, "lifted"}, {TeachingTarget::joint, "joint"}};

struct ConsolidationOptions {
  StudentStart student = StudentStart::best;
  learn::TeacherWeighting weighting = learn::TeacherWeighting::adaptive;
  TransferSet transfer = TransferSet::public_large;
  TeachingExchange exchange = TeachingExchange::models;
  TeachingTarget target = TeachingTarget::teachers;
  learn::Density density = learn::Density::ratio;  ///< Of weights experts.
  std::int64_t answer_bits = 16;                   ///< Of learn::answer_widths.
  std::int64_t lift = 512;                         ///< Random features of target lifted.
  std::int64_t projection = 256;  ///< Directions that the features of target joint are projected onto; 0: all features.
  KeptState keep = KeptState::last;
  bool gate = false;
  bool divides_label_prior = false;  ///< Out of each teacher's probabilities; public sets only.
  SettingChoice tune = SettingChoice::as_set;
  learn::SettingGrid grid;
};
void declare_fields(Fields& fields, const std::string& prefix, ConsolidationOptions& options);

/// The search that `options` ask for, over consolidations of `epochs`; null where the settings are as set.
std::unique_ptr<learn::SettingSearch> search_of(const ConsolidationOptions& options, std::int64_t epochs);

}  // namespace headstart::server
