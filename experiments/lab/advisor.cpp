#include "experiments/lab/advisor.hpp"

#include <algorithm>
#include <map>
#include <set>

#include <fmt/format.h>

#include "shared/base/error.hpp"

namespace headstart::lab {

namespace {

std::vector<std::pair<PairTransfer, std::int64_t>> sets_of(const Situation& situation) {
  std::vector<std::pair<PairTransfer, std::int64_t>> sets;
  if (situation.student_samples > 0) sets.emplace_back(PairTransfer::student, situation.student_samples);
  if (situation.public_labeled > 0) sets.emplace_back(PairTransfer::public_labeled, situation.public_labeled);
  if (situation.public_unlabeled > 0) {
    // What the study calls large and small: 5,000 and 500.
    constexpr std::int64_t least_large = 1000;
    sets.emplace_back(
        situation.public_unlabeled >= least_large ? PairTransfer::public_large : PairTransfer::public_small,
        situation.public_unlabeled);
  }
  if (sets.empty()) {
    throw Error(Errc::usage,
                "there is nothing to distil on: say how many samples there are with student_samples, "
                "public_unlabeled or public_labeled");
  }
  return sets;
}

/// The largest; among equals, labels come first.
std::pair<PairTransfer, std::int64_t> largest(const std::vector<std::pair<PairTransfer, std::int64_t>>& sets) {
  return *std::ranges::max_element(sets, [](const auto& a, const auto& b) { return a.second < b.second; });
}

/// T and alpha where nothing can be tuned.
void set_defaults(Advice& advice, TeacherStrength teacher) {
  const bool labeled = has_labels(advice.transfer);
  switch (teacher) {
    case TeacherStrength::stronger:
      advice.temperature = 3;
      if (labeled) advice.alpha = 0.75;
      advice.reasons.emplace_back(labeled ? "A stronger teacher: more weight on it than on the labels, and a larger T."
                                          : "A stronger teacher: a larger T.");
      return;
    case TeacherStrength::weaker:
      advice.temperature = 0.5;
      if (labeled) advice.alpha = 0.25;
      advice.reasons.emplace_back(labeled ? "A weaker teacher: little weight on it, and a small T."
                                          : "A weaker teacher: a small T, which leaves its surest answers.");
      return;
    case TeacherStrength::unknown:
      break;
  }
  advice.temperature = 1;
  if (labeled) advice.alpha = 0.5;
  advice.reasons.emplace_back("How strong the teacher is is not known: the usual T and alpha.");
}

struct Group {
  std::vector<const DoneCell*> rows;
  double mean = 0;       ///< Of what decides: the gain on validation data, or on the test set where rows lack it.
  double mean_test = 0;  ///< Of the gain on the test set.
};

using Choice = std::pair<PairMethod, PairTransfer>;

bool is_balanced(const std::string& partition) { return partition == "uniform" || partition == "quantity-skew"; }

/// Accuracies on the validation set, which a study may have drawn none of.
struct Validated {
  double start, teacher, after;
};

std::optional<Validated> validated(const DoneCell& done) {
  const auto found = done.result.metrics.find("validation");
  if (found == done.result.metrics.end()) return std::nullopt;
  const Validated accuracy{found->at("start").get<double>(), found->at("teacher").get<double>(),
                           found->at("accuracy").get<double>()};
  if (accuracy.start == 0 && accuracy.teacher == 0 && accuracy.after == 0) return std::nullopt;
  return accuracy;
}

/// Whether a pair of the study is like the user's.
bool is_alike(const DoneCell& done, const PairCell& cell, const Situation& situation) {
  const bool balanced = is_balanced(cell.settings.partition.kind);
  if (balanced != (situation.balance == ClassBalance::balanced)) return false;
  if (situation.teacher == TeacherStrength::unknown) return true;
  const std::optional<Validated> accuracy = validated(done);
  const bool is_strong =
      accuracy ? accuracy->teacher > accuracy->start : done.result.metrics.at("is_strong").get<bool>();
  return is_strong == (situation.teacher == TeacherStrength::stronger);
}

std::string pair_of(const PairCell& cell) {
  return fmt::format("{}/{}/{}-to-{}", cell.settings.partition.kind, cell.seed, cell.teacher, cell.student);
}

double test_gain(const DoneCell& row) { return row.result.metrics.at("gain").get<double>(); }

struct Ranking {
  std::map<Choice, Group> groups;
  bool is_by_validation = true;
};

/// The rows of the study that the user's case is like, by method and transfer set. Where a pair was computed for some
/// choices only, those pairs are compared that all have, if there are enough.
Ranking ranking_of(const Situation& situation, const std::vector<DoneCell>& cells) {
  constexpr std::size_t fewest = 3;
  std::map<Choice, std::map<std::string, const DoneCell*>> found;
  const auto sets = sets_of(situation);
  for (const DoneCell& done : cells) {
    const PairCell cell = pair_cell_of(done.cell);
    if (!cell.is_pair || !is_alike(done, cell, situation)) continue;
    if (is_searched(cell.method) && !situation.has_validation) continue;
    if (std::ranges::find(sets, cell.transfer, &std::pair<PairTransfer, std::int64_t>::first) == sets.end()) continue;
    found[{cell.method, cell.transfer}][pair_of(cell)] = &done;
  }
  std::erase_if(found, [](const auto& entry) { return entry.second.size() < fewest; });
  if (found.empty()) return {};
  std::set<std::string> common;
  for (const auto& [pair, row] : found.begin()->second) common.insert(pair);
  for (const auto& [choice, rows] : found) {
    std::erase_if(common, [&rows = rows](const std::string& pair) { return !rows.contains(pair); });
  }
  Ranking ranking;
  for (const auto& [choice, rows] : found) {
    Group& group = ranking.groups[choice];
    for (const auto& [pair, row] : rows) {
      if (common.size() >= fewest && !common.contains(pair)) continue;
      group.rows.push_back(row);
      if (!validated(*row)) ranking.is_by_validation = false;
    }
  }
  for (auto& [choice, group] : ranking.groups) {
    for (const DoneCell* row : group.rows) {
      const std::optional<Validated> accuracy = validated(*row);
      group.mean_test += test_gain(*row);
      group.mean += ranking.is_by_validation ? accuracy->after - accuracy->start : test_gain(*row);
    }
    group.mean /= static_cast<double>(group.rows.size());
    group.mean_test /= static_cast<double>(group.rows.size());
  }
  return ranking;
}

double median_of(const std::vector<const DoneCell*>& rows, const char* name) {
  std::vector<double> values;
  for (const DoneCell* row : rows) values.push_back(row->result.metrics.at(name).get<double>());
  std::ranges::nth_element(values, values.begin() + std::ssize(values) / 2);
  return values[values.size() / 2];
}

std::string named(const Choice& choice) {
  return fmt::format("{} on {}", word_of(choice.first), word_of(choice.second));
}

std::string_view transfer_of_federation(PairTransfer transfer) {
  switch (transfer) {
    case PairTransfer::public_large:
      return "public";
    case PairTransfer::public_small:
      return "public-small";
    case PairTransfer::student:
      return "student";
    case PairTransfer::public_labeled:
      break;
  }
  return "";
}

/// A federation distils by vanilla KD, as set or tuned, on student data or on a public set without labels.
void add_federation(Advice& advice, const Situation& situation) {
  const auto none = [&advice](std::string why) { advice.federation_note = "none: " + std::move(why); };
  if (!advice.method) return none("start.model best_local needs no distillation");
  const bool is_vanilla = *advice.method == PairMethod::vanilla || is_searched(*advice.method);
  if (!is_vanilla) return none(fmt::format("a federation has no {}", word_of(*advice.method)));
  const std::string_view transfer = transfer_of_federation(advice.transfer);
  if (transfer.empty()) return none("a federation distils on no labeled public set");
  advice.federation = fmt::format("--set start.model=kd --set consolidation.transfer={} --set validation.source={}",
                                  transfer, situation.has_validation ? "server" : "federated");
  if (is_searched(*advice.method)) {
    const bool is_grid = *advice.method == PairMethod::grid;
    advice.federation += fmt::format(" --set consolidation.tune={}", is_grid ? "grid" : "auto");
    if (*advice.method == PairMethod::tuned)
      advice.federation_note = "auto in place of tuned, which federations have not";
    return;
  }
  if (advice.temperature) advice.federation += fmt::format(" --set consolidation.temperature={}", *advice.temperature);
  if (advice.alpha) advice.federation += fmt::format(" --set consolidation.alpha={}", *advice.alpha);
}

}  // namespace

void declare_fields(Fields& fields, Situation& situation) {
  const Bounds count{.min = 0, .max = 1e12};
  fields.flag("has_validation", situation.has_validation, "There are labeled samples to choose settings by.");
  fields.integer("student_samples", situation.student_samples,
                 "Labeled samples of the student that may be distilled on; 0: none.", count);
  fields.integer("public_unlabeled", situation.public_unlabeled, "Public samples without labels.", count);
  fields.integer("public_labeled", situation.public_labeled, "Public samples with labels.", count);
  fields.choice("teacher", situation.teacher, "The teacher's accuracy against the student's.",
                Choices<TeacherStrength>(strength_words));
  fields.choice("balance", situation.balance, "Whether classes are balanced within a participant's data.",
                Choices<ClassBalance>(balance_words));
}

namespace {

Advice by_paper(const Situation& situation) {
  const auto sets = sets_of(situation);
  auto labeled = sets;
  std::erase_if(labeled, [](const auto& set) { return !has_labels(set.first); });

  Advice advice;
  const auto take = [&](PairMethod method, const std::pair<PairTransfer, std::int64_t>& set) {
    advice.method = method;
    advice.transfer = set.first;
    advice.copy_teaches = set.first != PairTransfer::student && method != PairMethod::mutual;
    if (sets.size() > 1) {
      advice.reasons.push_back(
          fmt::format("Of the transfer sets that serve, {} is the largest ({} samples): larger "
                      "ones help more.",
                      word_of(set.first), set.second));
    }
  };
  if (situation.has_validation) {
    advice.reasons.emplace_back(
        "There are labels to tune with: tuned distillation is the best in every setting, most "
        "where teacher and student differ most.");
    take(PairMethod::automatic, largest(sets));
    return advice;
  }
  if (labeled.empty()) {
    advice.reasons.emplace_back(
        "There are no labels at all: vanilla distillation, with the student's frozen copy as a "
        "second teacher. Deep mutual learning is harmful without labels.");
    advice.reasons.emplace_back(
        situation.balance == ClassBalance::balanced
            ? "As classes are balanced, unsupervised data partitioning (dp-kd) would do as well."
            : "Under class imbalance, data partitioning is clearly worse.");
    take(PairMethod::vanilla, largest(sets));
    set_defaults(advice, situation.teacher);
    return advice;
  }
  if (situation.teacher == TeacherStrength::weaker) {
    advice.reasons.emplace_back(
        "A weaker teacher, and labels: deep mutual learning, which learns from the labels first.");
    take(PairMethod::mutual, largest(labeled));
    return advice;
  }
  advice.reasons.emplace_back(
      situation.teacher == TeacherStrength::stronger
          ? "A stronger teacher, and nothing to tune with: vanilla distillation."
          : "Nothing to tune with: vanilla distillation, which no teacher's strength rules out.");
  if (situation.balance == ClassBalance::skewed) {
    advice.reasons.emplace_back("Strong class imbalance rules out data partitioning.");
  }
  take(PairMethod::vanilla, largest(sets));
  set_defaults(advice, situation.teacher);
  return advice;
}

Advice by_study(const Situation& situation, const std::vector<DoneCell>& cells) {
  const Ranking ranking = ranking_of(situation, cells);
  if (ranking.groups.empty()) {
    Advice advice = by_paper(situation);
    advice.reasons.emplace_back(
        "The study has fewer than three finished pairs like this case for each method: this is "
        "the paper's advice.");
    return advice;
  }
  std::vector<std::pair<Choice, const Group*>> order;
  for (const auto& [choice, group] : ranking.groups) order.emplace_back(choice, &group);
  std::ranges::stable_sort(order, [](const auto& a, const auto& b) { return a.second->mean > b.second->mean; });

  const auto& [choice, group] = order.front();
  Advice advice{.method = choice.first, .transfer = choice.second};
  advice.copy_teaches = choice.second != PairTransfer::student && choice.first != PairMethod::mutual &&
                        !std::string(word_of(choice.first)).starts_with("dp-kd");
  const char* const data = ranking.is_by_validation ? "on validation data" : "on the test set";
  advice.reasons.push_back(
      fmt::format("In the study, {} gains {:+.1f} points {} on average over {} pairs like this one.", named(choice),
                  100 * group->mean, data, group->rows.size()));
  if (ranking.is_by_validation) {
    advice.reasons.push_back(
        fmt::format("On the test set, which decides nothing, it gains {:+.1f} points.", 100 * group->mean_test));
    if (is_searched(choice.first)) {
      advice.reasons.emplace_back("A search chose by the same validation data: its gain there is a little too high.");
    }
  } else {
    advice.reasons.emplace_back(
        "The study has no validation gains for all such pairs: the test set decides, and flatters what it picks.");
  }
  for (std::size_t i = 1; i < std::min<std::size_t>(order.size(), 4); ++i) {
    advice.reasons.push_back(fmt::format("Next: {}, {:+.1f} points over {}.", named(order[i].first),
                                         100 * order[i].second->mean, order[i].second->rows.size()));
  }
  for (const DoneCell* row : group->rows) advice.rows.push_back(row->cell.key);
  if (group->mean <= 0) {
    advice.method.reset();
    advice.copy_teaches = false;
    advice.reasons.emplace_back(
        "So no method that you can use helps such pairs on average: better leave the student as "
        "it is, or get labels to tune with.");
    return advice;
  }
  const nlohmann::json& metrics = group->rows.front()->result.metrics;
  if (!metrics.at("temperature").is_null()) {
    advice.temperature = median_of(group->rows, "temperature");
    if (!metrics.at("alpha").is_null()) advice.alpha = median_of(group->rows, "alpha");
    if (is_searched(choice.first))
      advice.reasons.emplace_back("T and alpha are the medians of what the searches chose.");
  }
  return advice;
}

}  // namespace

Advice advise(const Situation& situation) {
  Advice advice = by_paper(situation);
  add_federation(advice, situation);
  return advice;
}

Advice advise(const Situation& situation, const std::vector<DoneCell>& cells) {
  Advice advice = by_study(situation, cells);
  add_federation(advice, situation);
  return advice;
}

std::string text_of(const Advice& advice) {
  std::string text = fmt::format("method        {}\n", advice.method ? word_of(*advice.method) : "none");
  if (advice.method) {
    text += fmt::format("transfer set  {}{}\n", word_of(advice.transfer),
                        advice.copy_teaches ? ", the student's frozen copy as a second teacher" : "");
    const bool is_search = is_searched(*advice.method);
    if (advice.temperature) {
      text += fmt::format("T             {}{}\n", *advice.temperature, is_search ? " to begin with" : "");
    }
    if (advice.alpha) text += fmt::format("alpha         {}\n", *advice.alpha);
    if (is_search && !advice.temperature) text += "T, alpha      chosen by validation accuracy\n";
  }
  text += fmt::format("federation    {}{}{}\n", advice.federation,
                      advice.federation.empty() || advice.federation_note.empty() ? "" : "\n              ",
                      advice.federation_note);
  text += "why\n";
  for (const std::string& reason : advice.reasons) text += "  - " + reason + "\n";
  if (advice.rows.empty()) return text;
  constexpr std::size_t num_shown = 8;
  text += "rows\n";
  for (std::size_t i = 0; i < std::min(advice.rows.size(), num_shown); ++i) text += "  " + advice.rows[i] + "\n";
  if (advice.rows.size() > num_shown) text += fmt::format("  and {} more\n", advice.rows.size() - num_shown);
  return text;
}

}  // namespace headstart::lab
