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
  double mean = 0;
};

using Choice = std::pair<PairMethod, PairTransfer>;

bool is_balanced(const std::string& partition) {
  return partition == word_of(learn::PartitionKind::uniform) ||
         partition == word_of(learn::PartitionKind::quantity_skew);
}

/// Whether a pair of the study is like the user's.
bool is_alike(const DoneCell& done, const PairCell& cell, const Situation& situation) {
  const bool balanced = is_balanced(std::string(word_of(cell.settings.partition.kind)));
  if (balanced != (situation.balance == ClassBalance::balanced)) return false;
  if (situation.teacher == TeacherStrength::unknown) return true;
  return done.result.metrics.at("is_strong").get<bool>() == (situation.teacher == TeacherStrength::stronger);
}

std::string pair_of(const PairCell& cell) {
  return fmt::format("{}/{}/{}-to-{}", word_of(cell.settings.partition.kind), cell.seed, cell.teacher, cell.student);
}

/// The rows of the study that the user's case is like, by method and transfer set. Where a pair was computed for some
/// choices only, those pairs are compared that all have, if there are enough.
std::map<Choice, Group> groups_of(const Situation& situation, const std::vector<DoneCell>& cells) {
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
  std::map<Choice, Group> groups;
  for (const auto& [choice, rows] : found) {
    Group& group = groups[choice];
    for (const auto& [pair, row] : rows) {
      if (common.size() < fewest || common.contains(pair)) group.rows.push_back(row);
    }
    for (const DoneCell* row : group.rows) group.mean += row->result.metrics.at("gain").get<double>();
    group.mean /= static_cast<double>(group.rows.size());
  }
  return groups;
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

Advice advise(const Situation& situation) {
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

Advice advise(const Situation& situation, const std::vector<DoneCell>& cells) {
  const std::map<Choice, Group> groups = groups_of(situation, cells);
  if (groups.empty()) {
    Advice advice = advise(situation);
    advice.reasons.emplace_back(
        "The study has fewer than three finished pairs like this case for each method: this is "
        "the paper's advice.");
    return advice;
  }
  std::vector<std::pair<Choice, const Group*>> order;
  for (const auto& [choice, group] : groups) order.emplace_back(choice, &group);
  std::ranges::stable_sort(order, [](const auto& a, const auto& b) { return a.second->mean > b.second->mean; });

  const auto& [choice, group] = order.front();
  Advice advice{.method = choice.first, .transfer = choice.second};
  advice.copy_teaches = choice.second != PairTransfer::student && choice.first != PairMethod::mutual &&
                        !std::string(word_of(choice.first)).starts_with("dp-kd");
  advice.reasons.push_back(fmt::format("In the study, {} gains {:+.1f} points on average over {} pairs like this one.",
                                       named(choice), 100 * group->mean, group->rows.size()));
  if (group->mean <= 0) {
    advice.reasons.emplace_back(
        "So no method that you can use helps such pairs on average: better leave the student as "
        "it is, or get labels to tune with.");
  }
  for (std::size_t i = 1; i < std::min<std::size_t>(order.size(), 4); ++i) {
    advice.reasons.push_back(fmt::format("Next: {}, {:+.1f} points over {}.", named(order[i].first),
                                         100 * order[i].second->mean, order[i].second->rows.size()));
  }
  const nlohmann::json& metrics = group->rows.front()->result.metrics;
  if (!metrics.at("temperature").is_null()) {
    advice.temperature = median_of(group->rows, "temperature");
    if (!metrics.at("alpha").is_null()) advice.alpha = median_of(group->rows, "alpha");
    if (is_searched(choice.first))
      advice.reasons.emplace_back("T and alpha are the medians of what the searches chose.");
  }
  for (const DoneCell* row : group->rows) advice.rows.push_back(row->cell.key);
  return advice;
}

std::string text_of(const Advice& advice) {
  std::string text =
      fmt::format("method        {}\ntransfer set  {}{}\n", word_of(advice.method), word_of(advice.transfer),
                  advice.copy_teaches ? ", the student's frozen copy as a second teacher" : "");
  if (advice.temperature) {
    text +=
        fmt::format("T             {}{}\n", *advice.temperature, is_searched(advice.method) ? " to begin with" : "");
  }
  if (advice.alpha) text += fmt::format("alpha         {}\n", *advice.alpha);
  if (is_searched(advice.method) && !advice.temperature) text += "T, alpha      chosen by validation accuracy\n";
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
