// The settings of a consolidation: who distils what into whom, and where.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "shared/base/fields.hpp"
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

struct ConsolidationOptions {
  StudentStart student = StudentStart::best;
  learn::TeacherWeighting weighting = learn::TeacherWeighting::adaptive;
  TransferSet transfer = TransferSet::public_large;
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
