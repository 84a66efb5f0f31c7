#include "shared/plan/terms.hpp"

#include <algorithm>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "shared/base/digest.hpp"
#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/base/printable.hpp"
#include "shared/base/version.hpp"
#include "shared/learn/models/model_size.hpp"
#include "shared/plan/from_peer.hpp"
#include "shared/wire/messages.hpp"

namespace headstart::plan {

namespace {

/// What the server fills in.
void declare_filled(Fields& fields, Terms& terms) {
  fields.integers("task.shape", terms.task.shape, "Shape of a sample.", {1, static_cast<double>(learn::max_extent)});
  fields.integer("task.classes", terms.task.num_classes, "Number of classes.",
                 {2, static_cast<double>(learn::max_classes)});
  fields.text("architecture", terms.architecture, "The server's model.");
  learn::declare_fields(fields, "samples", terms.samples);
  fields.checked_text("pretrain.metric", terms.metric, "What early stopping goes by.", learn::require_metric);
  fields.integer("plan.rounds", terms.plan.rounds, "Rounds of FedAvg.", {0, 1'000'000});
  fields.text("plan.start", terms.plan.start, "What round 1 starts from.");
  fields.text("plan.share_model", terms.plan.share_model, "What pre-trained models are wanted at other silos for.");
}

/// What names and constants must be beyond their bounds. Throws Error(data | usage).
void require_sound(const Terms& terms) {
  const learn::SampleTerms& samples = terms.samples;
  if (const auto violation = learn::shape_violation(terms.task.shape)) throw Error(Errc::data, *violation);
  if (!samples.classes.empty() && std::ssize(samples.classes) != terms.task.num_classes) {
    throw Error(Errc::data,
                fmt::format("there are {} names for {} classes", samples.classes.size(), terms.task.num_classes));
  }
  learn::require_class_names(samples.classes);
  const bool is_normalised = !samples.mean.empty() || !samples.deviation.empty();
  const std::int64_t channels = terms.task.shape.front();
  if (is_normalised && (std::ssize(samples.mean) != channels || std::ssize(samples.deviation) != channels)) {
    throw Error(Errc::data, fmt::format("{} means and {} deviations for {} channels", samples.mean.size(),
                                        samples.deviation.size(), channels));
  }
  learn::require_sound(samples.table);
  const auto num_features = std::ssize(learn::table_features(samples.table));
  if (!samples.table.is_empty() && terms.task.shape != std::vector<std::int64_t>{num_features}) {
    throw Error(Errc::data, fmt::format("the columns of the table make {} features, and a sample is of {}",
                                        num_features, learn::shape_text(terms.task.shape)));
  }
  if (!samples.range.empty() && (samples.range.size() != 2 || samples.range[0] > samples.range[1])) {
    throw Error(Errc::data, "a range is two numbers, the least and the greatest");
  }
  (void)terms.validation_metric();
}

void declare_fields(Fields& fields, SampleReport& report) {
  fields.texts("classes.names", report.classes.names, "Names of the classes.");
  fields.integer("classes.count", report.classes.count, "Their number.", {0, 1e9});
  fields.choice("classes.source", report.classes.source, "Where they are from.",
                Choices<learn::ClassSource>(learn::class_source_words));
  learn::declare_fields(fields, "figures", report.figures);
}

void declare_fields(Fields& fields, learn::Reference& reference) {
  fields.text("whose", reference.whose, "Whose figures these are.");
  learn::declare_fields(fields, "figures", reference.figures);
}

std::string dump(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// The key of the terms that lists the sections of which a client must know.
constexpr char required_key[] = "required";

/// What a client that does not know them can be without: they change nothing that it computes.
constexpr std::string_view optional_sections[] = {"limits", "plan"};

/// Settings that a client of another make may not know. They travel only where they are not at their defaults, so that
/// it can be in every run that does without them.
constexpr std::string_view later_settings[] = {"/consolidation/measure",
                                               "/consolidation/strength",
                                               "/model/second_head",
                                               "/consolidation/reduction",
                                               "/train/clip",
                                               "/run/precision",
                                               "/pretrain/metric",
                                               "/model/hidden_layers",
                                               "/data/statistics",
                                               "/samples/table"};

void leave_out_later_defaults(nlohmann::json& document, const nlohmann::json& defaults) {
  for (const std::string_view setting : later_settings) {
    const nlohmann::json::json_pointer place{std::string(setting)};
    if (!document.contains(place) || document.at(place) != defaults.at(place)) continue;
    document.at(place.parent_pointer()).erase(place.back());
  }
}

std::vector<std::string> required_sections(const Fields& fields) {
  std::vector<std::string> sections = fields.sections();
  std::erase_if(sections, [](const std::string& section) {
    return std::ranges::find(optional_sections, section) != std::end(optional_sections);
  });
  return sections;
}

/// Takes the list of what is required out of `document`.
std::vector<std::string> take_required(nlohmann::json& document) {
  constexpr std::size_t most = 64;
  const auto found = document.find(required_key);
  if (found == document.end()) return {};
  const nlohmann::json list = std::move(*found);
  document.erase(found);
  const bool is_sound = list.is_array() && list.size() <= most &&
                        std::ranges::all_of(list, [](const nlohmann::json& name) { return name.is_string(); });
  if (!is_sound) {
    throw Error(Errc::protocol,
                fmt::format("terms of the run: '{}' is no list of at most {} names of sections", required_key, most));
  }
  return list.get<std::vector<std::string>>();
}

/// Takes the sections out of `document` that no field belongs to, and names them. Throws Error(rejected) where it says
/// that they are required.
std::vector<std::string> take_unknown_sections(nlohmann::json& document, const Fields& fields) {
  if (!document.is_object()) return {};
  const std::vector<std::string> known = fields.sections();
  const auto is_known = [&known](const std::string& section) {
    return std::ranges::find(known, section) != known.end();
  };
  std::vector<std::string> missing = take_required(document);
  std::erase_if(missing, is_known);
  if (!missing.empty()) {
    throw Error(Errc::rejected, fmt::format("the run has terms that this client does not know and must: {}; use the "
                                            "server's version of headstart here",
                                            learn::list_text(missing)));
  }
  std::set<std::string> unknown;
  for (auto entry = document.begin(); entry != document.end();) {
    std::string section = entry.key().substr(0, entry.key().find('.'));
    if (is_known(section)) {
      ++entry;
      continue;
    }
    unknown.insert(std::move(section));
    entry = document.erase(entry);
  }
  return {unknown.begin(), unknown.end()};
}

}  // namespace

void declare_fields(Fields& fields, Terms& terms) {
  fields.group("limits", "What clients may send and announce at most");
  fields.integer("run.seed", terms.seed, "Seed of the run; every random stream derives from it.",
                 {0, 9007199254740992.0});
  fields.choice("run.precision", terms.precision,
                "What layers compute in, at server and clients. bf16: bfloat16 with float32 parameters, faster on "
                "processors and GPUs that have it, and refused on others. bf16-emulated: on any.",
                Choices<learn::Precision>(learn::precision_words));
  declare_fields(fields, "model", terms.model);
  fields.number("data.held_out", terms.held_out,
                "Fraction of a client's samples that it keeps for early stopping and federated evaluation.", {0, 0.9});
  fields.choice("data.statistics", terms.statistics,
                "What samples are normalised by. given: data.mean and data.deviation, or what the server's data say. "
                "federated: mean and deviation of each feature over all silos' training samples, from sums that silos "
                "send before anything is trained.",
                Choices<StatisticsSource>(statistics_words));
  declare_fields(fields, "pretrain", terms.pretrain);
  declare_fields(fields, "train", terms.train);
  declare_fields(fields, "consolidation", terms.consolidation);
  fields.integer(
      "limits.examples", terms.max_examples,
      "Most training samples that a client may announce; who announces more is refused. Averages are weighted "
      "by these numbers. 0: ten million, or as many as the training set of data.manifest has, if these are more.",
      {0, 0x1p40});
  fields.integer(
      "limits.own_model", terms.max_own_model,
      "Bytes of a model that a client may pre-train in place of the federated one (own_model at the client); "
      "checked before anybody builds it. 0: four times the federated model, at least 256 MiB.",
      {0, 1e13});
}

std::uint64_t own_model_limit(const Terms& terms, std::uint64_t federated_bytes) {
  constexpr std::uint64_t floor = std::uint64_t{256} << 20;
  if (terms.max_own_model > 0) return static_cast<std::uint64_t>(terms.max_own_model);
  return std::max(4 * federated_bytes, floor);
}

std::optional<std::string> beyond_own_model_limit(const learn::ModelSpec& spec, const Terms& terms,
                                                  std::uint64_t federated_bytes) {
  const std::uint64_t bytes = learn::state_bytes(spec, terms.task);
  const std::uint64_t limit = own_model_limit(terms, federated_bytes);
  if (bytes <= limit) return std::nullopt;
  return fmt::format("'{}' would have {} bytes; limits.own_model of the run allows {}", spec.architecture(), bytes,
                     limit);
}

std::string to_json_text(const Terms& terms) {
  Terms copy = terms;
  copy.model.forget_file();
  if (copy.statistics == StatisticsSource::federated) {
    copy.samples.mean.clear();
    copy.samples.deviation.clear();
  }
  Fields fields;
  declare_fields(fields, copy);
  declare_filled(fields, copy);
  nlohmann::json document = fields.resolved();
  Terms defaults;
  Fields default_fields;
  declare_fields(default_fields, defaults);
  declare_filled(default_fields, defaults);
  leave_out_later_defaults(document, default_fields.resolved());
  document[required_key] = required_sections(fields);
  return dump(document);
}

Terms terms_from_json_text(const std::string& text) {
  Terms terms;
  load_from_peer(
      text, "terms of the run",
      [&](Fields& fields) {
        declare_fields(fields, terms);
        declare_filled(fields, terms);
      },
      [&](nlohmann::json& document, const Fields& fields) {
        terms.unknown_sections = take_unknown_sections(document, fields);
      });
  try {
    require_sound(terms);
  } catch (const Error& error) {
    throw Error(Errc::protocol, printable(fmt::format("terms of the run: {}", error.what()), max_error_bytes));
  }
  if (terms.samples.classes.empty()) terms.samples.classes = learn::numbered_classes(terms.task.num_classes);
  return terms;
}

std::optional<std::string> remark_on_unknown(const Terms& terms) {
  if (terms.unknown_sections.empty()) return std::nullopt;
  return fmt::format("the run has terms that this client does not know and need not, and leaves aside: {}",
                     printable(learn::list_text(terms.unknown_sections), max_error_bytes));
}

void require_readable(const Terms& terms) {
  try {
    require_sound(terms);
    const std::string text = to_json_text(terms);
    if (text.size() > wire::Settings::max_size) {
      throw Error(
          Errc::data,
          fmt::format("they take {} bytes, and a client reads {} at most; names of the {} "
                      "classes, of {} columns and {} categories, and the means and deviations of {} channels make up "
                      "most of it: shorten the names, or have the samples normalised where they are stored or by "
                      "data.statistics federated",
                      text.size(), wire::Settings::max_size, terms.samples.classes.size(),
                      terms.samples.table.columns.size(), terms.samples.table.categories.size(),
                      terms.samples.mean.size()));
    }
    (void)terms_from_json_text(text);
  } catch (const Error& error) {
    throw Error(Errc::data, fmt::format("the run's terms cannot be told to clients: {}", error.what()));
  }
}

std::string digest_of(const Terms& terms) { return sha256_hex(to_json_text(terms)); }

wire::Metadata metadata_of(const Terms& terms, const std::string& architecture) {
  const learn::SampleTerms& samples = terms.samples;
  // One for all where there are many: a file need not say 65,536 times that it has none.
  const std::int64_t channels = terms.task.shape.front();
  const std::size_t count = channels > learn::max_figure_channels ? 1 : static_cast<std::size_t>(channels);
  const auto or_each = [count](const std::vector<double>& values, double value) {
    return dump(values.empty() ? std::vector<double>(count, value) : values);
  };
  wire::Metadata metadata = {
      {"headstart", std::string(version())},
      {"architecture", architecture},
      {"terms", digest_of(terms)},
      {"input_shape", dump(terms.task.shape)},
      {"scale", dump({{"uint8", 255}, {"float32", 1}})},
      {"stored", std::string(word_of(Choices<learn::Stored>(learn::stored_words), samples.stored))},
      {"range", dump(samples.range)},
      {"mean", or_each(samples.mean, 0)},
      {"deviation", or_each(samples.deviation, 1)},
      {"classes", dump(samples.classes.empty() ? learn::numbered_classes(terms.task.num_classes) : samples.classes)}};
  if (!samples.table.is_empty()) {
    nlohmann::json table = learn::json_of(learn::TableSchema{samples.table, samples.classes});
    table["missing"] = word_of(Choices<learn::MissingValues>(learn::missing_words), samples.table.missing);
    metadata["table"] = dump(table);
  }
  return metadata;
}

wire::Metadata metadata_of(const Terms& terms, std::int64_t round) {
  wire::Metadata metadata =
      metadata_of(terms, terms.architecture.empty() ? terms.model.architecture() : terms.architecture);
  metadata["round"] = std::to_string(round);
  return metadata;
}

std::optional<std::string> metadata_misfit(const wire::Metadata& file, const Terms& terms) {
  const wire::Metadata run = metadata_of(terms, std::string());
  for (const char* key : {"input_shape", "scale", "mean", "deviation", "classes", "table"}) {
    const auto said = file.find(key);
    const auto own = run.find(key);
    const std::string expected = own == run.end() ? "none" : own->second;
    if (said == file.end() || said->second == expected) continue;
    return fmt::format("its {} is {}, that of the data here is {}", key,
                       quotation(said->second, max_quoted_bytes, '\''), quotation(expected, max_quoted_bytes, '\''));
  }
  return std::nullopt;
}

std::string to_json_text(const learn::ModelSpec& spec) {
  learn::ModelSpec copy = spec;
  copy.forget_file();
  Fields fields;
  learn::declare_fields(fields, "model", copy);
  nlohmann::json document = fields.resolved();
  learn::ModelSpec defaults;
  Fields default_fields;
  learn::declare_fields(default_fields, "model", defaults);
  leave_out_later_defaults(document, default_fields.resolved());
  return document.dump();
}

learn::ModelSpec spec_from_json_text(const std::string& text) {
  learn::ModelSpec spec;
  load_from_peer(text, "a model's spec", [&](Fields& fields) { learn::declare_fields(fields, "model", spec); });
  return spec;
}

std::optional<std::string> misfit(const wire::Join& join, const Terms& terms) {
  if (join.num_examples == 0) return "the client has no training samples";
  if (const std::uint64_t most = std::max(join.num_examples, join.num_held_out);
      terms.max_examples > 0 && std::cmp_greater(most, terms.max_examples)) {
    return fmt::format("the client announces {} {} samples; limits.examples of the server allows {}", most,
                       most == join.num_examples ? "training" : "held-out", terms.max_examples);
  }
  if (!join.samples.value.empty()) {
    const SampleReport report = report_from_json_text(join.samples.value);
    if (auto other = learn::class_misfit(report.classes, terms.samples.classes)) return other;
  }
  const learn::Task& task = terms.task;
  const std::vector<std::int64_t> shape(join.shape.values.begin(), join.shape.values.end());
  if (const auto violation = learn::shape_violation(shape)) {
    return fmt::format("the client announces samples that cannot be: {}", *violation);
  }
  if (const learn::Task brought{shape, join.num_classes}; brought != task) {
    return fmt::format("the client brings samples of {}, the run has {}", learn::text_of(brought),
                       learn::text_of(task));
  }
  if (!terms.architecture.empty() && join.architecture.value != terms.architecture) {
    return fmt::format("the client would train {}, the run trains '{}'{}",
                       quotation(join.architecture.value, max_quoted_bytes, '\''), terms.architecture,
                       terms.model.is_scripted() ? "; give it the server's file (model.script)" : "");
  }
  return std::nullopt;
}

std::string to_json_text(const SampleReport& report) {
  SampleReport copy = report;
  constexpr std::size_t room_for_figures = 2048;  // less than what else the terms hold, which have the same names
  std::size_t num_bytes = 0;
  for (std::size_t i = 0; i < copy.classes.names.size(); ++i) {
    num_bytes += dump(copy.classes.names[i]).size() + 1;
    if (num_bytes > wire::Settings::max_size - room_for_figures) copy.classes.names.resize(i);
  }
  Fields fields;
  declare_fields(fields, copy);
  return dump(fields.resolved());
}

SampleReport report_from_json_text(const std::string& text) {
  SampleReport report;
  load_from_peer(text, "what the client says of its samples", [&](Fields& fields) { declare_fields(fields, report); });
  try {
    learn::require_whole(report.figures);
  } catch (const Error& error) {
    throw Error(Errc::protocol, printable(error.what(), max_error_bytes));
  }
  return report;
}

std::string to_json_text(const learn::Reference& reference) {
  learn::Reference copy = reference;
  Fields fields;
  declare_fields(fields, copy);
  return dump(fields.resolved());
}

learn::Reference reference_from_json_text(const std::string& text) {
  learn::Reference reference;
  load_from_peer(text, "what the server says of the run's samples",
                 [&](Fields& fields) { declare_fields(fields, reference); });
  try {
    learn::require_whole(reference.figures);
  } catch (const Error& error) {
    throw Error(Errc::protocol, printable(error.what(), max_error_bytes));
  }
  return reference;
}

}  // namespace headstart::plan
