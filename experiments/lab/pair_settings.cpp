#include "experiments/lab/pair_settings.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "shared/base/error.hpp"

namespace headstart::lab {

namespace {

using nlohmann::json;

template <class E, std::size_t N>
E value_of(const std::pair<E, std::string_view> (&words)[N], const std::string& word) {
  for (const auto& [value, text] : words) {
    if (text == word) return value;
  }
  throw Error(Errc::data, fmt::format("'{}' is no word of a pair study", word));
}

}  // namespace

bool has_labels(PairTransfer transfer) {
  return transfer == PairTransfer::student || transfer == PairTransfer::public_labeled;
}

bool is_searched(PairMethod method) {
  return method == PairMethod::tuned || method == PairMethod::grid || method == PairMethod::automatic;
}

std::string_view word_of(PairMethod method) {
  return headstart::word_of(Choices<PairMethod>(pair_method_words), method);
}
std::string_view word_of(PairTransfer transfer) {
  return headstart::word_of(Choices<PairTransfer>(pair_transfer_words), transfer);
}

void declare_fields(Fields& fields, PairSettings& settings) {
  declare_fields(fields, static_cast<ParticipantSettings&>(settings));
  fields.group("kd", "How a teacher's model is distilled into a student's");
  learn::declare_fields(fields, "kd", settings.kd);
  learn::declare_fields(fields, "grid", settings.grid);
  fields.flag("grid.rate_epochs", settings.rates_epochs,
              "Record the validation rating after every epoch of every setting that a search tries.");
}

void declare_fields(Fields& fields, PairPlan& plan) {
  fields.group("study", "What the study varies: partitions, seeds, methods, transfer sets, pairs");
  fields.words("study.partitions", plan.partitions, "How the data are divided among the participants.",
               learn::partition_words());
  fields.integers("study.seeds", plan.seeds, "Seeds: each draws data, participants and orders of its own.",
                  {.min = 0, .max = 9007199254740992.0});
  fields.choices("study.methods", plan.methods, "How a teacher's model is distilled into a student's.",
                 Choices<PairMethod>(pair_method_words));
  fields.choices("study.transfers", plan.transfers, "Transfer sets.", Choices<PairTransfer>(pair_transfer_words));
  fields.integer("study.pairs", plan.num_pairs,
                 "Ordered teacher-student pairs of each partition and seed, spread evenly over the order of their "
                 "differences in validation accuracy; 0: all.",
                 {.min = 0, .max = 1e6});
  fields.integer("study.searched_pairs", plan.num_searched_pairs,
                 "The same for the methods that search temperature and alpha (tuned, grid, auto); 0: as study.pairs.",
                 {.min = 0, .max = 1e6});
}

void declare_fields(Fields& fields, PairStudy& study) {
  declare_fields(fields, study.plan);
  declare_fields(fields, study.settings);
  fields.withdraw("partition.kind");
}

void check(const PairStudy& study) {
  const auto require = [](bool holds, const std::string& otherwise) {
    if (!holds) throw Error(Errc::usage, otherwise);
  };
  const PairPlan& plan = study.plan;
  require(!plan.partitions.empty() && !plan.seeds.empty() && !plan.methods.empty() && !plan.transfers.empty(),
          "study.partitions, study.seeds, study.methods and study.transfers each need at least one entry");
  require(study.settings.partition.num_clients >= 2, "partition.clients: a pair needs 2 participants at least");
  require(study.settings.draws.validation > 0,
          "draw.validation: a study needs validation samples: pairs and settings are chosen by them");
  learn::check(study.settings.kd, "kd");
  const auto size_of = [&](PairTransfer transfer) -> std::pair<const char*, std::int64_t> {
    switch (transfer) {
      case PairTransfer::public_large:
        return {"draw.public_large", study.settings.draws.public_large};
      case PairTransfer::public_small:
        return {"draw.public_small", study.settings.draws.public_small};
      case PairTransfer::public_labeled:
        return {"draw.public_labeled", study.settings.draws.public_labeled};
      case PairTransfer::student:
        break;
    }
    return {"", 1};
  };
  for (const PairTransfer transfer : plan.transfers) {
    const auto [setting, size] = size_of(transfer);
    require(size > 0, fmt::format("study.transfers has {}, which is empty: {} is 0", word_of(transfer), setting));
    require(has_labels(transfer) ||
                std::ranges::find(plan.methods, PairMethod::partitioned_supervised) == plan.methods.end(),
            fmt::format("study.methods has dp-kd-supervised, and {} has no labels", word_of(transfer)));
  }
}

Cell to_cell(const PairCell& pair) {
  PairSettings copy = pair.settings;
  Fields fields;
  declare_fields(fields, copy);
  json settings = fields.resolved();
  std::string key = fmt::format("{}/seed-{}/", copy.partition.kind, pair.seed);
  settings["pair"] = {{"seed", pair.seed}, {"student", pair.student}};
  if (pair.is_pair) {
    settings["pair"]["teacher"] = pair.teacher;
    settings["pair"]["transfer"] = word_of(pair.transfer);
    settings["pair"]["method"] = word_of(pair.method);
    key += fmt::format("{}/{}/{}-to-{}", word_of(pair.transfer), word_of(pair.method), pair.teacher, pair.student);
  } else {
    key += fmt::format("participant-{}", pair.student);
  }
  return {key, settings};
}

PairCell pair_cell_of(const Cell& cell) {
  try {
    json settings = cell.settings;
    const json which = settings.at("pair");
    settings.erase("pair");
    PairCell pair;
    Fields fields;
    declare_fields(fields, pair.settings);
    fields.load(settings, "cell " + cell.key);
    pair.seed = which.at("seed").get<std::int64_t>();
    pair.student = which.at("student").get<std::int64_t>();
    pair.is_pair = which.contains("teacher");
    if (pair.is_pair) {
      pair.teacher = which.at("teacher").get<std::int64_t>();
      pair.transfer = value_of(pair_transfer_words, which.at("transfer").get<std::string>());
      pair.method = value_of(pair_method_words, which.at("method").get<std::string>());
    }
    return pair;
  } catch (const json::exception& failure) {
    throw Error(Errc::data, fmt::format("cell {}: is not of a pair study ({})", cell.key, failure.what()));
  }
}

std::vector<Cell> participant_cells(const PairStudy& study) {
  std::vector<Cell> cells;
  for (const std::string& partition : study.plan.partitions) {
    for (const std::int64_t seed : study.plan.seeds) {
      PairCell cell{.settings = study.settings, .seed = seed, .is_pair = false};
      cell.settings.partition.kind = partition;
      for (cell.student = 0; cell.student < study.settings.partition.num_clients; ++cell.student) {
        cells.push_back(to_cell(cell));
      }
    }
  }
  return cells;
}

std::vector<Cell> pair_cells(const PairStudy& study, const std::string& partition, std::int64_t seed,
                             const std::vector<Strength>& strengths) {
  const PairPlan& plan = study.plan;
  const auto pairs = spread_pairs(strengths, plan.num_pairs);
  const auto searched_pairs = plan.num_searched_pairs == 0 ? pairs : spread_pairs(strengths, plan.num_searched_pairs);
  std::vector<Cell> cells;
  PairCell cell{.settings = study.settings, .seed = seed};
  cell.settings.partition.kind = partition;
  for (const PairTransfer transfer : plan.transfers) {
    for (const PairMethod method : plan.methods) {
      for (const auto& [teacher, student] : is_searched(method) ? searched_pairs : pairs) {
        cell.transfer = transfer;
        cell.method = method;
        cell.teacher = teacher;
        cell.student = student;
        cells.push_back(to_cell(cell));
      }
    }
  }
  return cells;
}

std::vector<std::pair<std::int64_t, std::int64_t>> spread_pairs(const std::vector<Strength>& strengths,
                                                                std::int64_t count) {
  const std::int64_t n = std::ssize(strengths);
  std::vector<std::pair<std::int64_t, std::int64_t>> pairs;
  for (std::int64_t teacher = 0; teacher < n; ++teacher) {
    for (std::int64_t student = 0; student < n; ++student) {
      if (teacher != student) pairs.emplace_back(teacher, student);
    }
  }
  if (count == 0 || count >= std::ssize(pairs)) return pairs;
  const auto difference = [&](const std::pair<std::int64_t, std::int64_t>& pair) {
    const auto accuracy = [&](std::int64_t i) { return strengths[static_cast<std::size_t>(i)].validation_accuracy; };
    return accuracy(pair.first) - accuracy(pair.second);
  };
  std::ranges::stable_sort(pairs, {}, difference);
  std::vector<std::pair<std::int64_t, std::int64_t>> spread;
  for (std::int64_t i = 0; i < count; ++i) {
    spread.push_back(pairs[static_cast<std::size_t>((2 * i + 1) * std::ssize(pairs) / (2 * count))]);
  }
  return spread;
}

}  // namespace headstart::lab
