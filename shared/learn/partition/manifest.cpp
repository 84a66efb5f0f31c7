#include "shared/learn/partition/manifest.hpp"

#include <algorithm>
#include <array>
#include <iterator>
#include <numeric>

#include <fmt/format.h>
#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/data/stratified.hpp"

namespace headstart::learn {

namespace {

using Indices = std::vector<std::int64_t>;
using nlohmann::json;

constexpr std::string_view format_word = "headstart-manifest";
constexpr int format_version = 1;

/// The lists of single draws, by their keys in the file.
constexpr std::array<std::pair<std::string_view, Indices Manifest::*>, 6> draw_lists = {{
    {"validation", &Manifest::validation},
    {"public_large", &Manifest::public_large},
    {"public_small", &Manifest::public_small},
    {"public_labeled", &Manifest::public_labeled},
    {"unused", &Manifest::unused},
    {"test", &Manifest::test},
}};

Indices first_indices(std::int64_t count) {
  Indices indices(static_cast<std::size_t>(count));
  std::iota(indices.begin(), indices.end(), std::int64_t{0});
  return indices;
}

/// a and b ascending.
Indices difference(const Indices& a, const Indices& b) {
  Indices rest;
  std::ranges::set_difference(a, b, std::back_inserter(rest));
  return rest;
}

std::vector<Indices> counts_by_class(const std::vector<Indices>& clients, const Tensor& labels,
                                     std::int64_t num_classes) {
  const auto label = labels.accessor<std::int64_t, 1>();
  std::vector<Indices> counts;
  for (const Indices& client : clients) {
    Indices& row = counts.emplace_back(static_cast<std::size_t>(num_classes), 0);
    for (const std::int64_t i : client) ++row[static_cast<std::size_t>(label[i])];
  }
  return counts;
}

void check_sizes(const Dataset& train, const Dataset& test, const DrawOptions& draws) {
  for (const std::int64_t count :
       {draws.validation, draws.public_large, draws.public_small, draws.public_labeled, draws.clients, draws.test}) {
    if (count < 0) throw Error(Errc::usage, fmt::format("a draw of {} samples, expected 0 or more", count));
  }
  const std::int64_t before_clients = draws.validation + draws.public_large + draws.public_small + draws.public_labeled;
  // With `clients` 0 the clients share the rest, which must not be nothing.
  const std::int64_t wanted = before_clients + std::max<std::int64_t>(draws.clients, 1);
  if (wanted > train.size()) {
    throw Error(Errc::usage,
                fmt::format("draws of validation {}, public_large {}, public_small {}, public_labeled {}, clients {} "
                            "need {} samples, and the training split of {} has {}",
                            draws.validation, draws.public_large, draws.public_small, draws.public_labeled,
                            draws.clients, wanted, train.name, train.size()));
  }
  if (draws.test > test.size()) {
    throw Error(Errc::usage, fmt::format("a draw of {} test samples, and the test split of {} has {}", draws.test,
                                         test.name, test.size()));
  }
}

json resolved_settings(DrawOptions draws, PartitionOptions options) {
  Fields fields;
  declare_fields(fields, "partition", options);
  declare_fields(fields, "draw", draws);
  return fields.resolved();
}

/// Reads one file's document, naming file and key in every complaint.
class ManifestReader {
 public:
  ManifestReader(const json& document, std::string file) : document_(document), file_(std::move(file)) {}

  [[noreturn]] void fail(std::string_view key, std::string_view what) const {
    throw Error(Errc::data, fmt::format("{}, key '{}': {}", file_, key, what));
  }

  [[nodiscard]] const json& at(std::string_view key) const {
    const auto found = document_.find(key);
    if (found == document_.end()) fail(key, "missing");
    return *found;
  }

  [[nodiscard]] std::string text(std::string_view key) const {
    const json& value = at(key);
    if (!value.is_string()) fail(key, "expected text, got " + value.dump());
    return value.get<std::string>();
  }

  [[nodiscard]] std::uint64_t whole_number(std::string_view key) const {
    const json& value = at(key);
    if (!value.is_number_unsigned()) fail(key, "expected a whole number, got " + value.dump());
    return value.get<std::uint64_t>();
  }

  [[nodiscard]] Indices list(const json& value, std::string_view key) const {
    if (!value.is_array()) fail(key, fmt::format("expected a list, got {}", value.type_name()));
    Indices result;
    result.reserve(value.size());
    for (const json& element : value) {
      const bool is_number = element.is_number_unsigned() && element.get<std::uint64_t>() <= INT64_MAX;
      if (!is_number) fail(key, fmt::format("entry {}: expected 0 or above, got {}", result.size(), element.dump()));
      result.push_back(element.get<std::int64_t>());
    }
    return result;
  }

  [[nodiscard]] std::vector<Indices> table(std::string_view key) const {
    const json& value = at(key);
    if (!value.is_array()) fail(key, fmt::format("expected a list, got {}", value.type_name()));
    std::vector<Indices> rows;
    for (const json& row : value) rows.push_back(list(row, fmt::format("{}[{}]", key, rows.size())));
    return rows;
  }

 private:
  const json& document_;
  std::string file_;
};

void require_distinct(std::vector<std::pair<std::int64_t, std::string>> held, const ManifestReader& reader) {
  std::ranges::sort(held);
  const auto twice = std::ranges::adjacent_find(held, [](const auto& a, const auto& b) { return a.first == b.first; });
  if (twice == held.end()) return;
  reader.fail(std::next(twice)->second,
              fmt::format("sample {} is listed twice (also in '{}')", twice->first, twice->second));
}

void require_no_sample_twice(const Manifest& manifest, const ManifestReader& reader) {
  std::vector<std::pair<std::int64_t, std::string>> train;
  std::vector<std::pair<std::int64_t, std::string>> test;
  for (const auto& [key, list] : draw_lists) {
    auto& split = list == &Manifest::test ? test : train;
    for (const std::int64_t i : manifest.*list) split.emplace_back(i, key);
  }
  for (std::size_t client = 0; client < manifest.clients.size(); ++client) {
    const std::string key = fmt::format("clients[{}]", client);
    for (const std::int64_t i : manifest.clients[client]) train.emplace_back(i, key);
  }
  require_distinct(std::move(train), reader);
  require_distinct(std::move(test), reader);
}

void require_matching_counts(const Manifest& manifest, const ManifestReader& reader) {
  if (manifest.clients.empty()) reader.fail("clients", "there are none");
  if (manifest.class_counts.size() != manifest.clients.size()) {
    reader.fail("class_counts",
                fmt::format("{} rows for {} clients", manifest.class_counts.size(), manifest.clients.size()));
  }
  for (std::size_t client = 0; client < manifest.clients.size(); ++client) {
    const Indices& row = manifest.class_counts[client];
    const std::size_t num_samples = manifest.clients[client].size();
    if (num_samples == 0) reader.fail(fmt::format("clients[{}]", client), "no samples");
    const bool has_all_classes = row.size() == static_cast<std::size_t>(manifest.num_classes);
    // Each count is bounded first, so that the sum cannot overflow.
    const bool is_bounded =
        std::ranges::all_of(row, [&](auto count) { return std::cmp_less_equal(count, num_samples); });
    const bool adds_up = has_all_classes && is_bounded &&
                         std::cmp_equal(std::accumulate(row.begin(), row.end(), std::int64_t{0}), num_samples);
    if (!adds_up) {
      reader.fail(fmt::format("class_counts[{}]", client),
                  fmt::format("expected {} counts with the sum {}", manifest.num_classes, num_samples));
    }
  }
}

void require_indices_below(const Indices& indices, std::int64_t size, std::string_view key, const std::string& file) {
  for (const std::int64_t i : indices) {
    if (i < 0 || i >= size) {
      throw Error(Errc::data, fmt::format("{}, key '{}': sample {}, and the split has {}", file, key, i, size));
    }
  }
}

/// Above this many classes a table of counts no longer fits a line.
constexpr std::int64_t most_class_columns = 20;

std::string cell(std::int64_t count) { return count == 0 ? "." : std::to_string(count); }

std::string count_rows(const Manifest& manifest) {
  std::string text = fmt::format("{:>6}", "client");
  for (std::int64_t c = 0; c < manifest.num_classes; ++c) text += fmt::format(" {:>6}", c);
  text += fmt::format(" {:>7}\n", "total");
  Indices sums(static_cast<std::size_t>(manifest.num_classes), 0);
  for (std::size_t client = 0; client < manifest.clients.size(); ++client) {
    text += fmt::format("{:>6}", client);
    for (std::size_t c = 0; c < sums.size(); ++c) {
      sums[c] += manifest.class_counts[client][c];
      text += fmt::format(" {:>6}", cell(manifest.class_counts[client][c]));
    }
    text += fmt::format(" {:>7}\n", manifest.clients[client].size());
  }
  text += fmt::format("{:>6}", "all");
  for (const std::int64_t sum : sums) text += fmt::format(" {:>6}", cell(sum));
  return text + fmt::format(" {:>7}\n", std::accumulate(sums.begin(), sums.end(), std::int64_t{0}));
}

std::string held_rows(const Manifest& manifest) {
  std::string text =
      fmt::format("{:>6} {:>8} {:>13} {:>6} {:>7}\n", "client", "classes", "largest class", "share", "total");
  for (std::size_t client = 0; client < manifest.clients.size(); ++client) {
    const Indices& row = manifest.class_counts[client];
    const auto largest = std::ranges::max_element(row);
    const std::size_t total = manifest.clients[client].size();
    text += fmt::format("{:>6} {:>8} {:>13} {:>5.1f}% {:>7}\n", client,
                        row.size() - static_cast<std::size_t>(std::ranges::count(row, 0)), largest - row.begin(),
                        100.0 * static_cast<double>(*largest) / static_cast<double>(total), total);
  }
  return text;
}

}  // namespace

void declare_fields(Fields& fields, const std::string& prefix, DrawOptions& options) {
  fields.group(prefix, "How many samples the validation, public and test sets have");
  constexpr Bounds count{.min = 0, .max = 1e9};
  fields.integer(prefix + ".validation", options.validation, "Samples of the server's validation set.", count);
  fields.integer(prefix + ".public_large", options.public_large, "Samples of the large unlabeled public set.", count);
  fields.integer(prefix + ".public_small", options.public_small, "Samples of the small unlabeled public set.", count);
  fields.integer(prefix + ".public_labeled", options.public_labeled, "Samples of the labeled public set.", count);
  fields.integer(prefix + ".clients", options.clients,
                 "Training samples shared out to the clients; 0: all that the other draws leave.", count);
  fields.integer(prefix + ".test", options.test, "Test samples that measure; 0: the whole test split.", count);
}

Manifest draw_manifest(const Dataset& train, const Dataset& test, const DrawOptions& draws,
                       const PartitionOptions& options, std::uint64_t seed) {
  if (train.num_classes < 2) {
    throw Error(Errc::data, fmt::format("data set {}: one class only, expected 2 at least", train.name));
  }
  check_sizes(train, test, draws);
  Manifest manifest;
  manifest.dataset = train.name;
  manifest.train_digest = train.digest();
  manifest.test_digest = test.digest();
  manifest.num_classes = train.num_classes;
  manifest.seed = seed;
  manifest.settings = resolved_settings(draws, options);

  // The kind of partition takes no part in these streams: all kinds of one seed share their draws.
  const Seed root(seed);
  Indices rest = first_indices(train.size());
  const auto take = [&](std::string_view label, std::int64_t count) {
    Indices drawn = stratified_draw(train.labels, train.num_classes, rest, count, root.child("draw").child(label));
    rest = difference(rest, drawn);
    return drawn;
  };
  manifest.validation = take("validation", draws.validation);
  manifest.public_large = take("public_large", draws.public_large);
  manifest.public_small = take("public_small", draws.public_small);
  manifest.public_labeled = take("public_labeled", draws.public_labeled);
  const Indices shared = draws.clients == 0 ? std::exchange(rest, {}) : take("clients", draws.clients);

  const Tensor shared_labels = train.labels.index_select(0, torch::tensor(shared, at::kLong));
  const Partition parts = partition(shared_labels, train.num_classes, options, root.child("partition"));
  const auto in_split = [&](const Indices& places) {
    Indices indices;
    for (const std::int64_t place : places) indices.push_back(shared[static_cast<std::size_t>(place)]);
    return indices;
  };
  for (const Indices& client : parts.clients) manifest.clients.push_back(in_split(client));
  std::ranges::merge(rest, in_split(parts.unused), std::back_inserter(manifest.unused));
  manifest.class_counts = counts_by_class(manifest.clients, train.labels, train.num_classes);

  const Indices whole_test = first_indices(test.size());
  manifest.test = draws.test == 0 ? whole_test
                                  : stratified_draw(test.labels, test.num_classes, whole_test, draws.test,
                                                    root.child("draw").child("test"));
  return manifest;
}

std::string manifest_text(const Manifest& manifest) {
  // One key and one client a line: a person can look at the file, and tools can compare two.
  std::string text = "{\n";
  const auto add = [&](std::string_view key, const json& value) {
    text += fmt::format(" \"{}\": {},\n", key, value.dump());
  };
  const auto add_rows = [&](std::string_view key, const std::vector<Indices>& rows, std::string_view end) {
    text += fmt::format(" \"{}\": [", key);
    for (std::size_t i = 0; i < rows.size(); ++i)
      text += fmt::format("{}\n  {}", i == 0 ? "" : ",", json(rows[i]).dump());
    text += fmt::format("\n ]{}\n", end);
  };
  add("format", format_word);
  add("version", format_version);
  add("dataset", manifest.dataset);
  add("train_digest", manifest.train_digest);
  add("test_digest", manifest.test_digest);
  add("num_classes", manifest.num_classes);
  add("seed", manifest.seed);
  add("settings", manifest.settings);
  add_rows("class_counts", manifest.class_counts, ",");
  for (const auto& [key, list] : draw_lists) add(key, manifest.*list);
  add_rows("clients", manifest.clients, "");
  return text + "}\n";
}

Manifest parse_manifest(std::string_view text, const std::string& name) {
  const json document = parse_json(text, name);
  const ManifestReader reader(document, name);
  if (!document.is_object() || document.value("format", json()) != format_word) {
    reader.fail("format", fmt::format("not a manifest: expected \"{}\"", format_word));
  }
  if (reader.at("version") != format_version) {
    reader.fail("version", fmt::format("{}, and this program reads {}", reader.at("version").dump(), format_version));
  }
  Manifest manifest;
  manifest.dataset = reader.text("dataset");
  manifest.train_digest = reader.text("train_digest");
  manifest.test_digest = reader.text("test_digest");
  manifest.num_classes = static_cast<std::int64_t>(reader.whole_number("num_classes"));
  manifest.seed = reader.whole_number("seed");
  manifest.settings = reader.at("settings");
  if (!manifest.settings.is_object()) reader.fail("settings", "expected an object");
  for (const auto& [key, list] : draw_lists) manifest.*list = reader.list(reader.at(key), key);
  manifest.clients = reader.table("clients");
  manifest.class_counts = reader.table("class_counts");
  require_matching_counts(manifest, reader);
  require_no_sample_twice(manifest, reader);
  return manifest;
}

void save_manifest(const Manifest& manifest, const std::filesystem::path& file) {
  write_text_atomically(file, manifest_text(manifest));
}

Manifest load_manifest(const std::filesystem::path& file) { return parse_manifest(read_text(file), file.string()); }

void check_fits(const Manifest& manifest, const Dataset& dataset, Split split, const std::string& file) {
  const bool is_train = split == Split::train;
  if (manifest.dataset != dataset.name || manifest.num_classes != dataset.num_classes) {
    throw Error(Errc::data, fmt::format("{}: the manifest is of {} with {} classes, the data set is {} with {}", file,
                                        manifest.dataset, manifest.num_classes, dataset.name, dataset.num_classes));
  }
  if (dataset.digest() != (is_train ? manifest.train_digest : manifest.test_digest)) {
    throw Error(Errc::data, fmt::format("{}: the manifest was made for another {} split of {} (its {} differ); draw a "
                                        "new manifest, or use the data it was made for",
                                        file, is_train ? "training" : "test", dataset.name,
                                        dataset.paths_digest.empty() ? "labels" : "files' names or labels"));
  }
  for (const auto& [key, list] : draw_lists) {
    if ((list == &Manifest::test) != is_train) require_indices_below(manifest.*list, dataset.size(), key, file);
  }
  if (!is_train) return;
  for (std::size_t client = 0; client < manifest.clients.size(); ++client) {
    require_indices_below(manifest.clients[client], dataset.size(), fmt::format("clients[{}]", client), file);
  }
  if (counts_by_class(manifest.clients, dataset.labels, dataset.num_classes) != manifest.class_counts) {
    throw Error(Errc::data, file + ", key 'class_counts': not what the clients' samples are");
  }
}

std::string summary_table(const Manifest& manifest) {
  const json::json_pointer kind_place("/partition/kind");
  const json kind = manifest.settings.contains(kind_place) ? manifest.settings.at(kind_place) : json("?");
  std::string text =
      fmt::format("{}, {}, {} clients, seed {}: samples by class\n", manifest.dataset,
                  kind.is_string() ? kind.get<std::string>() : kind.dump(), manifest.clients.size(), manifest.seed);
  text += manifest.num_classes <= most_class_columns ? count_rows(manifest) : held_rows(manifest);
  for (const auto& [key, list] : draw_lists) text += fmt::format("{} {}  ", key, (manifest.*list).size());
  text.erase(text.find_last_not_of(' ') + 1);
  return text + "\n";
}

}  // namespace headstart::learn
