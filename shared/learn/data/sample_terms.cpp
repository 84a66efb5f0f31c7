#include "shared/learn/data/sample_terms.hpp"

#include <algorithm>
#include <map>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/names.hpp"
#include "shared/learn/data/reading.hpp"

namespace headstart::learn {

namespace {

constexpr std::size_t most_name_bytes = 256;

/// In quotation marks; what is not ASCII is escaped, so that names that look alike can be told apart.
std::string quoted(const std::string& name) {
  return nlohmann::json(name).dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
}

std::string in_lower_case(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return text;
}

bool is_utf8(const std::string& text) {
  try {
    (void)nlohmann::json(text).dump();
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

/// The first of `own` that is not among `run`, and what it may have been meant for.
std::string stranger_in(const std::vector<std::string>& own, const std::vector<std::string>& run) {
  const std::set<std::string> known(run.begin(), run.end());
  for (const std::string& name : own) {
    if (known.contains(name)) continue;
    const auto in_other_case = std::ranges::find(run, in_lower_case(name), in_lower_case);
    if (in_other_case != run.end()) {
      return fmt::format("{} differs from {} in upper and lower case", quoted(name), quoted(*in_other_case));
    }
    const std::string near = nearest(name, run);
    return fmt::format("the run has no class {}{}", quoted(name),
                       near.empty() ? "" : fmt::format(" (but {})", quoted(near)));
  }
  return {};
}

std::string difference_between(const std::vector<std::string>& own, const std::vector<std::string>& run) {
  if (const std::string stranger = stranger_in(own, run); !stranger.empty()) return stranger;
  if (own.size() != run.size()) return fmt::format("there are {} here and {} in the run", own.size(), run.size());
  const auto [mine, theirs] = std::ranges::mismatch(own, run);
  return fmt::format("their order differs: label {} is {} here and {} in the run", mine - own.begin(), quoted(*mine),
                     quoted(*theirs));
}

/// Where the silo holds a schema of its own, it says the same as the run's terms.
void require_own_schema(const Dataset& dataset, const SampleTerms& run) {
  const Table& table = *dataset.table;
  if (table.schema_file.empty()) return;
  const auto refuse = [&table](const std::string& difference) {
    throw Error(Errc::data, fmt::format("{}: the run's terms have other columns: {}; take the coordinator's schema, or "
                                        "none (data.schema)",
                                        table.schema_file, difference));
  };
  const auto shown = [](const TableColumn& column) {
    if (column.categories.empty()) return quoted(column.name) + ", a number";
    return fmt::format("{}, one of {}", quoted(column.name), list_text(column.categories));
  };
  if (dataset.columns.label != run.table.label) {
    refuse(fmt::format("label {} here and {} there", quoted(dataset.columns.label), quoted(run.table.label)));
  }
  const std::vector<TableColumn> own = dataset.columns.list();
  const std::vector<TableColumn> theirs = run.table.list();
  const auto [mine, other] = std::ranges::mismatch(own, theirs);
  if (mine != own.end() && other != theirs.end()) {
    refuse(fmt::format("column {} is {} here and {} there", mine - own.begin() + 1, shown(*mine), shown(*other)));
  }
  if (own.size() != theirs.size()) refuse(fmt::format("{} here and {} there", own.size(), theirs.size()));
  if (dataset.classes != run.classes) {
    refuse(fmt::format("classes {} here and {} there", list_text(dataset.classes), list_text(run.classes)));
  }
}

}  // namespace

Stored stored_of(const Dataset& dataset) {
  return dataset.images.scalar_type() == at::kByte ? Stored::uint8 : Stored::float32;
}

void declare_fields(Fields& fields, const std::string& prefix, SampleTerms& terms) {
  fields.texts(prefix + ".classes", terms.classes, "Names of the classes, by label.");
  fields.choice(prefix + ".stored", terms.stored, "How the run's own samples are stored.",
                Choices<Stored>(stored_words));
  fields.numbers(prefix + ".range", terms.range, "Least and greatest value before it is normalised; may be empty.");
  fields.numbers(prefix + ".mean", terms.mean, "Per channel; may be empty.");
  fields.numbers(prefix + ".deviation", terms.deviation, "Per channel; may be empty.",
                 {.min = smallest_deviation, .max = 1e30});
  declare_fields(fields, prefix + ".table", terms.table);
}

std::vector<std::string> numbered_classes(std::int64_t num_classes) {
  std::vector<std::string> names;
  for (std::int64_t i = 0; i < num_classes; ++i) names.push_back(std::to_string(i));
  return names;
}

void require_class_names(const std::vector<std::string>& names) {
  std::set<std::string> seen;
  for (std::size_t label = 0; label < names.size(); ++label) {
    const std::string& name = names[label];
    const auto refuse = [&](std::string_view what) {
      throw Error(Errc::data,
                  fmt::format("the name of class {}, {}, {}", label, quoted(name.substr(0, most_name_bytes)), what));
    };
    if (name.empty()) refuse("is empty");
    if (name.size() > most_name_bytes) refuse(fmt::format("has more than {} bytes", most_name_bytes));
    if (!is_utf8(name)) refuse("is not UTF-8");
    if (std::ranges::any_of(name, [](char c) { return (c >= 0 && c < ' ') || c == '\x7f'; })) {
      refuse("has a control character");
    }
    if (!seen.insert(name).second) refuse("stands in the list twice");
  }
}

std::optional<std::pair<std::string, std::string>> names_that_differ_in_case(const std::vector<std::string>& names) {
  std::map<std::string, std::string> seen;
  for (const std::string& name : names) {
    const auto [earlier, is_new] = seen.emplace(in_lower_case(name), name);
    if (!is_new && earlier->second != name) return std::pair(earlier->second, name);
  }
  return std::nullopt;
}

std::string list_text(const std::vector<std::string>& names) {
  constexpr std::size_t most_characters = 120;
  if (names.empty()) return "none";
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string next = (i == 0 ? "" : ", ") + quoted(names[i].substr(0, most_name_bytes));
    if (i > 0 && text.size() + next.size() > most_characters) {
      return fmt::format("{}, ... ({} in all)", text, names.size());
    }
    text += next;
  }
  return text;
}

ClassList class_list(const Dataset& dataset) { return {dataset.classes, dataset.num_classes, dataset.class_source}; }

std::optional<std::string> class_misfit(const ClassList& own, const std::vector<std::string>& run) {
  const bool is_numbered = run == numbered_classes(std::ssize(run));
  std::string difference;
  switch (own.source) {
    case ClassSource::labels:
      return std::nullopt;
    case ClassSource::folders:
      difference = stranger_in(own.names, run);
      break;
    case ClassSource::stated:
      if (own.names.empty() && own.count != std::ssize(run)) {
        return fmt::format("its data have {} classes (num_classes in meta.json), the run has {}: {}", own.count,
                           run.size(), list_text(run));
      }
      if (!own.names.empty() && own.names != run) difference = difference_between(own.names, run);
      break;
  }
  if (difference.empty()) return std::nullopt;
  return fmt::format(
      "its classes are {}; the run's are {}: {}. {}", list_text(own.names), list_text(run), difference,
      is_numbered
          ? "The run has numbers for names: the coordinator gives it names (data.classes, or classes in meta.json)"
          : "Spell class folders, labels of a table, or classes in meta.json, as the run does");
}

Tensor labels_in(const Dataset& dataset, const std::vector<std::string>& classes) {
  if (const auto misfit = class_misfit(class_list(dataset), classes)) {
    throw Error(Errc::data, fmt::format("data set {}: {}", dataset.name, *misfit));
  }
  if (dataset.class_source == ClassSource::folders) {
    std::vector<std::int64_t> numbers;
    for (const std::string& name : dataset.classes)
      numbers.push_back(std::ranges::find(classes, name) - classes.begin());
    return torch::tensor(numbers, at::kLong).index_select(0, dataset.labels);
  }
  try {
    require_labels_within(dataset.labels, std::ssize(classes), [&dataset](std::int64_t i) {
      const std::int64_t place = dataset.places.defined() ? dataset.places[i].item<std::int64_t>() : i;
      return fmt::format("{}, index {}", dataset.labels_file.empty() ? dataset.name : dataset.labels_file, place);
    });
  } catch (const Error& error) {
    throw Error(error.code(),
                fmt::format("{}: the run has {} classes ({}). If that is too few, the coordinator's own data "
                            "lack some: it names all with data.classes",
                            error.what(), classes.size(), list_text(classes)));
  }
  return dataset.labels;
}

Dataset in_terms(const Dataset& dataset, const SampleTerms& run) {
  if (!dataset.table) return dataset;
  if (run.table.is_empty()) {
    throw Error(Errc::usage,
                fmt::format("{}: a table needs a run whose terms say what its columns are: data.set csv at the server; "
                            "between peers there are none",
                            dataset.table->file));
  }
  require_own_schema(dataset, run);
  const bool is_encoded = dataset.columns == run.table && dataset.classes == run.classes;
  Dataset result = dataset;
  if (!is_encoded) {
    EncodedRows rows = encoded(*dataset.table, run.table, run.classes, dataset.places);
    result.images = std::move(rows.samples);
    result.labels = std::move(rows.labels);
  }
  result.columns = run.table;
  result.classes = run.classes;
  result.num_classes = std::ssize(run.classes);
  result.class_source = ClassSource::stated;
  return result;
}

Samples stored_input(const Dataset& dataset, const SampleTerms& run) {
  Dataset stored = in_terms(dataset, run);
  stored.labels = labels_in(stored, run.classes);
  Tensor values = stored.images.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  if (stored_of(stored) == Stored::uint8) values.div_(255);
  return {std::move(values), stored.labels.clone()};
}

Samples model_input(const Dataset& dataset, const SampleTerms& run) {
  Samples samples = stored_input(dataset, run);
  const std::int64_t channels = samples.x.size(1);
  if (!run.mean.empty() && (std::ssize(run.mean) != channels || std::ssize(run.deviation) != channels)) {
    throw Error(Errc::data,
                fmt::format("the run's mean and deviation are of {} and {} channels, samples of data set {} "
                            "have {}",
                            run.mean.size(), run.deviation.size(), dataset.name, channels));
  }
  normalise(samples.x, run.mean, run.deviation, run.table.missing);
  return samples;
}

SampleTerms sample_terms(const Dataset& dataset) {
  SampleTerms terms;
  terms.classes = dataset.classes.empty() ? numbered_classes(dataset.num_classes) : dataset.classes;
  terms.stored = stored_of(dataset);
  terms.mean = dataset.mean;
  terms.deviation = dataset.deviation;
  terms.table = dataset.columns;
  if (terms.stored == Stored::uint8) {
    terms.range = {0, 1};
  } else if (dataset.table) {
    terms.range = {};  // the least and greatest value of a table are those of single rows
  } else if (dataset.images.numel() > 0) {
    terms.range = {dataset.images.min().item<double>(), dataset.images.max().item<double>()};
  }
  return terms;
}

}  // namespace headstart::learn
