#include "server/operations/page_data.hpp"

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/base/printable.hpp"

namespace headstart::server {

namespace {

using nlohmann::json;

/// The value at a dotted path; null where there is none.
const json& at_path(const json& object, std::string_view path) {
  static const json nothing;
  const json* here = &object;
  while (!path.empty()) {
    const std::size_t dot = std::min(path.find('.'), path.size());
    const auto found = here->is_object() ? here->find(std::string(path.substr(0, dot))) : here->end();
    if (!here->is_object() || found == here->end()) return nothing;
    here = &*found;
    path.remove_prefix(std::min(dot + 1, path.size()));
  }
  return *here;
}

/// The values of these keys that are there and not null.
json picked(const json& object, std::initializer_list<const char*> keys) {
  json result = json::object();
  for (const char* key : keys) {
    if (const json& value = at_path(object, key); !value.is_null()) result[key] = value;
  }
  return result;
}

/// targets.accuracies, and targets.fractions of targets.reference, ascending.
json targets_of(const json& config) {
  std::set<double> targets;
  const json& reference = at_path(config, "targets.reference");
  for (const json& accuracy : at_path(config, "targets.accuracies")) {
    if (accuracy.is_number()) targets.insert(accuracy.get<double>());
  }
  for (const json& fraction : at_path(config, "targets.fractions")) {
    if (fraction.is_number() && reference.is_number()) targets.insert(fraction.get<double>() * reference.get<double>());
  }
  return json(targets);
}

/// Whole lines of a file of JSON lines. A last line without its end, of a run that writes it, is left out.
template <class Take>
void for_each_line(const std::filesystem::path& file, Take take) {
  const std::string text = read_text(file);
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) return;
    const json line = parse_json(std::string_view(text).substr(begin, end - begin),
                                 fmt::format("{}, line {}", file.string(), ++number));
    if (!line.is_object())
      throw Error(Errc::data, fmt::format("{}, line {}: expected an object", file.string(), number));
    take(line);
    begin = end + 1;
  }
}

bool is_there(const std::filesystem::path& file) { return headstart::is_there(file, Errc::data); }

std::string text_at(const json& object, const char* key) {
  const json& value = at_path(object, key);
  return value.is_string() ? value.get<std::string>() : "";
}

std::uint64_t count_at(const json& object, const char* key) {
  const json& value = at_path(object, key);
  return value.is_number_unsigned() ? value.get<std::uint64_t>() : 0;
}

/// A line of audit.jsonl in words; empty where it is one of many alike.
std::string words_of_event(const json& event) {
  const std::string what = text_at(event, "event");
  const std::string client = text_at(event, "client");
  const std::string reason = text_at(event, "reason");
  if (what == "server started") return "server started, version " + text_at(event, "version");
  if (what == "joined") return client + " joined";
  if (what == "returned") return client + " returned";
  if (what == "samples differ") return client + ": its samples differ: " + reason;
  if (what == "connection lost") return client + ": the connection is lost: " + reason;
  if (what == "result refused")
    return fmt::format("{}: result refused ({}): {}", client, text_at(event, "kind"), reason);
  if (what == "refused") return fmt::format("{} was not admitted: {}", client.empty() ? "a peer" : client, reason);
  if (what == "taken back") return fmt::format("gone back to round {}", count_at(event, "round"));
  if (what == "run ended") return "run ended: " + reason;
  if (what == "received" && at_path(event, "accepted") == false) {
    return fmt::format("{}: {} refused: {}", client, text_at(event, "what"), reason);
  }
  return "";
}

/// What audit.jsonl says of silos and of what happened.
struct Audit {
  struct Silo {
    std::uint64_t up = 0, down = 0;
    std::int64_t num_connections = 0;
  };
  std::map<std::string, Silo> silos;
  std::deque<json> notes;

  void take(const json& event) {
    const std::string what = text_at(event, "event");
    const std::string client = text_at(event, "client");
    if (what == "sent") silos[client].down += count_at(event, "bytes");
    if (what == "received") silos[client].up += count_at(event, "bytes");
    if (what == "joined" || what == "returned") ++silos[client].num_connections;
    const std::string words = words_of_event(event);
    if (words.empty()) return;
    notes.push_back({{"at", text_at(event, "at")}, {"text", printable(words)}});
    if (notes.size() > max_page_notes) notes.pop_front();
  }
};

/// The silos of a run that is not under way.
json silos_of(const std::map<std::string, Audit::Silo>& silos, const json& newest) {
  json list = json::array();
  for (const auto& [name, silo] : silos) {
    json entry = {
        {"name", name}, {"state", ""}, {"up", silo.up}, {"down", silo.down}, {"connections", silo.num_connections}};
    if (const json& refused = newest.is_object() ? at_path(newest, "refused") : newest; refused.contains(name)) {
      entry["refused"] = refused.at(name);
    }
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace

std::string run_name(const std::filesystem::path& folder) {
  const std::filesystem::path plain = folder.lexically_normal();
  return (plain.has_filename() ? plain : plain.parent_path()).filename().string();
}

json run_facts(const json& run) {
  json facts = picked(run, {"version", "seed", "dataset", "architecture", "models_leave_silos_for"});
  const json& config = at_path(run, "config");
  const std::pair<const char*, const char*> keys[] = {{"start", "start.model"},
                                                      {"head", "start.head"},
                                                      {"strategy", "federation.strategy"},
                                                      {"rounds", "federation.rounds"},
                                                      {"clients", "federation.clients"},
                                                      {"min_clients", "federation.min_clients"},
                                                      {"validation", "validation.source"},
                                                      {"stops_at_targets", "targets.stop"}};
  for (const auto& [key, path] : keys) {
    if (const json& value = at_path(config, path); value.is_primitive() && !value.is_null()) facts[key] = value;
  }
  if (const json& classes = at_path(run, "samples.classes"); classes.is_array()) facts["classes"] = classes;
  facts["targets"] = targets_of(config);
  return facts;
}

json round_point(const json& line) {
  json point = picked(
      line, {"round", "accuracy", "loss", "validation_accuracy", "seconds", "bytes_up", "bytes_down", "metrics"});
  if (const json& federated = at_path(line, "federated"); federated.is_object()) {
    point["federated"] = picked(federated, {"accuracy", "loss"});
  }
  if (const json& clients = at_path(line, "clients"); clients.is_array()) point["updates"] = clients.size();
  if (const json& excluded = at_path(line, "excluded"); excluded.is_object() && !excluded.empty()) {
    point["excluded"] = excluded;
  }
  return point;
}

json newest_round(const json& line) {
  json newest = picked(line, {"round", "class_accuracy", "norms", "refused", "silo_metrics", "clients"});
  if (!newest.contains("class_accuracy")) {
    if (const json& recalls = at_path(line, "federated.class_accuracy"); recalls.is_array()) {
      newest["class_accuracy"] = recalls;
    }
  }
  return newest;
}

json run_end(const json& summary, bool is_failure) {
  json end = picked(summary, {"stopped_because", "start_used", "rounds", "seconds", "bytes_up", "bytes_down", "targets",
                              "final_accuracy", "best_accuracy", "degraded", "left_out", "before_rounds"});
  end["failed"] = is_failure;
  return end;
}

json partition_counts(const std::filesystem::path& manifest) {
  if (manifest.empty()) return nullptr;
  try {
    const json read = read_json(manifest);
    const json& counts = at_path(read, "class_counts");
    return counts.is_array() ? counts : json();
  } catch (const Error&) {
    return nullptr;  // the run itself says what is wrong with it
  }
}

json reference_run(const std::filesystem::path& run) {
  const bool is_file = !is_folder(run, Errc::data);
  const std::filesystem::path lines = is_file ? run : run / "rounds.jsonl";
  const std::filesystem::path folder = lines.parent_path();
  json reference = {{"name", run_name(folder.empty() ? std::filesystem::path(".") : folder)},
                    {"rounds", json::array()}};
  for_each_line(lines, [&reference](const json& line) { reference["rounds"].push_back(round_point(line)); });
  if (reference["rounds"].empty()) throw Error(Errc::data, lines.string() + ": there is no round in it");
  if (const auto summary = folder / "summary.json"; is_there(summary)) {
    reference.update(picked(read_json(summary), {"before_rounds", "start_used"}));
  }
  return reference;
}

json recorded_run(const std::filesystem::path& folder) {
  if (!is_there(folder / "run.json")) {
    throw Error(Errc::data, fmt::format("{}: expected the folder of a run, with a run.json", folder.string()));
  }
  const json record = read_json(folder / "run.json");
  json run = {{"run", run_name(folder)},
              {"first", true},
              {"facts", run_facts(record)},
              {"rounds_from", 0},
              {"rounds", json::array()},
              {"notes_from", 0},
              {"partition", partition_counts(text_at(record, "config.data.manifest"))}};
  if (is_there(folder / "rounds.jsonl")) {
    for_each_line(folder / "rounds.jsonl", [&run](const json& line) {
      run["rounds"].push_back(round_point(line));
      run["newest"] = newest_round(line);
    });
  }
  Audit audit;
  if (is_there(folder / "audit.jsonl")) {
    for_each_line(folder / "audit.jsonl", [&audit](const json& event) { audit.take(event); });
  }
  run["notes"] = audit.notes;
  run["status"] = {{"silos", silos_of(audit.silos, run.value("newest", json()))}};
  for (const auto& [file, is_failure] : {std::pair{"summary.json", false}, std::pair{"interrupted.json", true}}) {
    if (!is_there(folder / file)) continue;
    const json summary = read_json(folder / file);
    run["end"] = run_end(summary, is_failure);
    run["facts"].update(picked(summary, {"start_used", "before_rounds"}));
    break;
  }
  return run;
}

}  // namespace headstart::server
