#include "server/record/run_folder.hpp"

#include <algorithm>
#include <functional>

#include <fmt/format.h>

#include "server/record/run_events.hpp"
#include "shared/base/error.hpp"
#include "shared/wire/safetensors.hpp"

namespace headstart::server {

namespace {

/// What a run leaves at its end.
constexpr const char* results[] = {"summary.json", "interrupted.json", "final.safetensors"};
constexpr const char* best_model = "best.safetensors";

std::string to_document(const nlohmann::json& value) {
  return value.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

Error finished(const std::filesystem::path& folder) {
  return Error(Errc::storage,
               folder.string() + ": holds a finished run, which is never overwritten; choose another folder");
}

/// Makes the folder where it is new; one that holds something else than a run with its journal is refused.
const std::filesystem::path& prepared(const std::filesystem::path& folder) {
  if (is_there(folder / "journal", Errc::storage)) return folder;
  if (is_there(folder / "summary.json", Errc::storage)) throw finished(folder);
  const bool is_empty = is_folder(folder, Errc::storage) && entries_in(folder, Errc::storage).empty();
  if (!is_empty) make_new_folder(folder);
  return folder;
}

/// What the journal says last, where it is such an event. What it cannot be is for replay() to say.
template <class Event>
std::optional<Event> last_if(const Journal& journal) {
  if (journal.earlier().empty()) return std::nullopt;
  try {
    RunEvent event = event_from(journal.earlier().back());
    if (auto* wanted = std::get_if<Event>(&event)) return std::move(*wanted);
  } catch (const Error&) {
  } catch (const nlohmann::json::exception&) {
  }
  return std::nullopt;
}

}  // namespace

RunFolder::RunFolder(const std::filesystem::path& folder, CheckpointOptions checkpoints, WallClock wall_clock)
    : folder_(prepared(folder)), checkpoints_(checkpoints), journal_(std::make_unique<Journal>(folder_ / "journal")) {
  if (is_over() && !is_there(folder_ / "summary.json", Errc::storage)) throw finished(folder_);
  if (const std::optional<TakenBackEvent> back = last_if<TakenBackEvent>(*journal_)) {
    // A server that was killed while it went back; all that matters was kept aside.
    reopen(back->is_best_later);
  }
  std::error_code code;
  std::filesystem::create_directory(folder_ / "checkpoints", code);
  if (code) {
    throw Error(Errc::storage,
                fmt::format("{}: cannot be made ({})", (folder_ / "checkpoints").string(), code.message()));
  }
  // What single silos sent, also where the run's folder was there before and others may enter it.
  if (!is_over()) {
    for (const char* part : {"models", "staging"}) make_private_folder(folder_ / part);
    discard_partial_files();
  }
  rounds_.emplace(folder_ / "rounds.jsonl");
  audit_.emplace(folder_ / "audit.jsonl", std::move(wall_clock));
}

bool RunFolder::is_over() const { return last_if<OverEvent>(*journal_).has_value(); }

nlohmann::json RunFolder::earlier_run() const {
  const std::filesystem::path file = folder_ / "run.json";
  return is_there(file, Errc::storage) ? read_json(file) : nlohmann::json();
}

void RunFolder::rewrite_rounds(const std::vector<RoundRecord>& records) {
  std::string text;
  for (const RoundRecord& record : records) text += to_line(to_json(record)) + "\n";
  const std::filesystem::path file = folder_ / "rounds.jsonl";
  rounds_.reset();
  write_text_atomically(file, text);
  rounds_.emplace(file);
}

std::filesystem::path RunFolder::model_of(const std::string& client) const {
  return folder_ / "models" / (client + ".safetensors");
}

void RunFolder::write_run(const nlohmann::json& run) { write_text_atomically(folder_ / "run.json", to_document(run)); }

void RunFolder::write_port(std::uint16_t port) { write_text_atomically(folder_ / "port", fmt::format("{}\n", port)); }
void RunFolder::write_admin_port(std::uint16_t port) {
  write_text_atomically(folder_ / "admin-port", fmt::format("{}\n", port));
}

void RunFolder::write_summary(const nlohmann::json& summary) {
  std::error_code ignored;
  std::filesystem::remove(folder_ / "interrupted.json", ignored);
  write_text_atomically(folder_ / "summary.json", to_document(summary));
}

void RunFolder::write_interrupted(const nlohmann::json& summary) {
  write_text_atomically(folder_ / "interrupted.json", to_document(summary));
}

std::filesystem::path RunFolder::checkpoint_of(std::int64_t round) const {
  return folder_ / "checkpoints" / fmt::format("round-{:05}.safetensors", round);
}

bool RunFolder::checkpoint(std::int64_t round, const wire::PackedState& model,
                           const std::map<std::string, std::string>& metadata) {
  if (checkpoints_.every == 0 || round % checkpoints_.every != 0) return false;
  wire::save_safetensors(checkpoint_of(round), model, metadata);
  return true;
}

std::vector<std::filesystem::path> RunFolder::kept_checkpoints() const {
  std::vector<std::filesystem::path> files = entries_in(folder_ / "checkpoints", Errc::storage);
  std::erase_if(files, [](const auto& file) { return file.extension() != ".safetensors"; });
  std::ranges::sort(files, std::ranges::greater());
  return files;
}

void RunFolder::prune_checkpoints() {
  if (checkpoints_.keep == 0) return;
  const std::vector<std::filesystem::path> files = kept_checkpoints();
  for (std::size_t i = static_cast<std::size_t>(checkpoints_.keep); i < files.size(); ++i) {
    remove_file(files[i]);
  }
}

void RunFolder::discard_checkpoints_after(std::int64_t round) {
  const std::filesystem::path last = checkpoint_of(round);
  for (const std::filesystem::path& file : kept_checkpoints()) {
    if (round < 0 || file > last) remove_file(file);
  }
}

bool RunFolder::has_checkpoint(std::int64_t round) const { return is_there(checkpoint_of(round), Errc::storage); }

std::string RunFolder::keep_aside(std::int64_t round, bool is_best_later) {
  std::vector<std::filesystem::path> files = {"rounds.jsonl"};
  for (const char* file : results) files.emplace_back(file);
  if (is_best_later) files.emplace_back(best_model);
  for (const std::filesystem::path& file : kept_checkpoints()) {
    if (file > checkpoint_of(round)) files.push_back(std::filesystem::path("checkpoints") / file.filename());
  }
  std::string name;
  for (int i = 1; name.empty(); ++i) {
    const std::string candidate = fmt::format("taken-back-{}", i);
    if (!is_there(folder_ / candidate, Errc::storage)) name = candidate;
  }
  const std::filesystem::path aside = folder_ / name;
  make_new_folder(aside);
  make_new_folder(aside / "checkpoints");
  for (const std::filesystem::path& file : files) {
    if (!is_there(folder_ / file, Errc::storage)) continue;
    // A second name for the same file, which nobody writes to any more: it is on the disk already.
    std::error_code code;
    std::filesystem::create_hard_link(folder_ / file, aside / file, code);
    if (code) std::filesystem::copy_file(folder_ / file, aside / file, code);
    if (code) {
      throw Error(Errc::storage, fmt::format("{}: cannot be made ({})", (aside / file).string(), code.message()));
    }
  }
  for (const std::filesystem::path& changed : {aside / "checkpoints", aside, folder_}) sync_folder(changed);
  return name;
}

void RunFolder::reopen(bool is_best_later) {
  for (const char* file : results) remove_file(folder_ / file);
  if (is_best_later) remove_file(folder_ / best_model);
  for (const char* part : {"models", "staging"}) make_private_folder(folder_ / part);
}

void RunFolder::discard_partial_files() {
  for (const std::filesystem::path& part : {folder_, folder_ / "checkpoints", folder_ / "models"}) {
    for (const std::filesystem::path& file : entries_in(part, Errc::storage)) {
      if (AtomicFile::is_partial(file)) remove_file(file);
    }
  }
}

nlohmann::json RunFolder::earlier_summary() const {
  const std::filesystem::path file = folder_ / "summary.json";
  return is_there(file, Errc::storage) ? read_json(file) : nlohmann::json();
}

wire::PackedState RunFolder::load_checkpoint(std::int64_t round, const std::string& digest) const {
  const std::filesystem::path file = checkpoint_of(round);
  wire::PackedState state = wire::load_safetensors(file).model;
  if (state.digest() != digest) {
    throw Error(Errc::data, file.string() + ": is not the model that the journal names for this round");
  }
  return state;
}

void RunFolder::write_best(const wire::PackedState& model, const std::map<std::string, std::string>& metadata) {
  wire::save_safetensors(folder_ / "best.safetensors", model, metadata);
}

void RunFolder::write_final(const wire::PackedState& model, const std::map<std::string, std::string>& metadata) {
  wire::save_safetensors(folder_ / "final.safetensors", model, metadata);
}

void RunFolder::discard_temporary() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_ / "models", ignored);
  std::filesystem::remove_all(folder_ / "staging", ignored);
}

}  // namespace headstart::server
