// Who distils what into whom: the plan of a consolidation, as a pure function of the clients' ratings.
// Source: Alballa & Canini 2024 (arXiv 2402.14922), equations 6 and 7 and table II.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "shared/base/fields.hpp"
#include "shared/learn/distill.hpp"
#include "shared/learn/metrics.hpp"
#include "shared/learn/setting_search.hpp"

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

/// A client's pre-trained model as far as the plan must know it.
struct Candidate {
  std::string client;
  bool has_federated_architecture = true;
  bool can_teach = true;  ///< False where the transfer set rules it out; `obstacle` says why.
  std::string obstacle;
  bool can_host = true;                     ///< False where its client cannot be asked to distil on its own data.
  bool shares_with_peers = true;            ///< Only such a model's weights may reach other silos.
  std::optional<learn::Evaluation> rating;  ///< By the validation source.
};

/// Whether its weights, finite as they are, give no finite answers: nothing is to be learned from them.
bool has_diverged(const Candidate& candidate);

/// Ratings order: accuracy, then lower loss, then name; the first is the best, the last the worst.
bool ranks_before(const Candidate& a, const Candidate& b);

struct ConsolidationPlan {
  /// Whose model the student starts from; empty: the untrained global model.
  std::optional<std::string> student;
  /// Where student data lies: the client that does the work. Empty on a public set.
  std::optional<std::string> place;
  std::vector<std::string> teachers;                          ///< Clients, in name order.
  bool copy_teaches = false;                                  ///< The frozen copy of the student is the last teacher.
  learn::Tensor weights;                                      ///< float64 [teachers (+ copy), classes].
  std::vector<std::pair<std::string, std::string>> left_out;  ///< Client and why it does not teach.
  bool is_published = true;                                   ///< A cell of the published table.
};

/// The search that `options` ask for, over consolidations of `epochs`; null where the settings are as set.
std::unique_ptr<learn::SettingSearch> search_of(const ConsolidationOptions& options, std::int64_t epochs);

/// The student starts from a model that its silo shares with peers, and on student data only such models teach.
/// Throws Error(run_failed) where nobody can be the student or nobody can teach.
ConsolidationPlan plan_consolidation(const ConsolidationOptions& options, std::vector<Candidate> candidates,
                                     std::int64_t num_classes);

}  // namespace headstart::server
