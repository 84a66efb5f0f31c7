#include "server/run_folder.hpp"

#include <algorithm>
#include <functional>

#include <fmt/format.h>

#include "server/recovery.hpp"
#include "shared/base/error.hpp"
#include "shared/wire/safetensors.hpp"

namespace headstart::server {

namespace {

std::string to_document(const nlohmann::json& value) {
  return value.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

Error finished(const std::filesystem::path& folder) {
  return Error(Errc::storage,
               folder.string() + ": holds a finished run, which is never overwritten; choose another folder");
}

/// Makes the folder where it is new; one that holds something else than a run with its journal is refused.
const std::filesystem::path& prepared(const std::filesystem::path& folder) {
  std::error_code ignored;
  const bool has_journal = std::filesystem::exists(folder / "journal", ignored);
  if (has_journal) return folder;
  if (std::filesystem::exists(folder / "summary.json", ignored)) throw finished(folder);
  const bool is_empty = std::filesystem::is_directory(folder, ignored) && std::filesystem::is_empty(folder, ignored);
  if (!is_empty) make_new_folder(folder);
  return folder;
}

}  // namespace

RunFolder::RunFolder(const std::filesystem::path& folder, CheckpointOptions checkpoints, WallClock wall_clock)
    : folder_(prepared(folder)), checkpoints_(checkpoints), journal_(std::make_unique<Journal>(folder_ / "journal")) {
  if (is_over() && !std::filesystem::exists(folder_ / "summary.json")) throw finished(folder_);
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

bool RunFolder::is_over() const { return !journal_->earlier().empty() && is_over_event(journal_->earlier().back()); }

nlohmann::json RunFolder::earlier_run() const {
  const std::filesystem::path file = folder_ / "run.json";
  return std::filesystem::exists(file) ? read_json(file) : nlohmann::json();
}

void RunFolder::rewrite_rounds(const std::vector<nlohmann::json>& lines) {
  std::string text;
  for (const nlohmann::json& line : lines) text += to_line(line) + "\n";
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

bool RunFolder::checkpoint(std::int64_t round, const wire::PackedState& model) {
  if (checkpoints_.every == 0 || round % checkpoints_.every != 0) return false;
  wire::save_safetensors(checkpoint_of(round), model, {{"round", std::to_string(round)}});
  return true;
}

std::vector<std::filesystem::path> RunFolder::kept_checkpoints() const {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "checkpoints")) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  std::ranges::sort(files, std::ranges::greater());
  return files;
}

void RunFolder::prune_checkpoints() {
  if (checkpoints_.keep == 0) return;
  const std::vector<std::filesystem::path> files = kept_checkpoints();
  for (std::size_t i = static_cast<std::size_t>(checkpoints_.keep); i < files.size(); ++i) {
    std::filesystem::remove(files[i]);
  }
}

void RunFolder::discard_checkpoints_after(std::int64_t round) {
  const std::filesystem::path last = checkpoint_of(round);
  for (const std::filesystem::path& file : kept_checkpoints()) {
    if (round < 0 || file > last) std::filesystem::remove(file);
  }
}

void RunFolder::discard_partial_files() {
  for (const std::filesystem::path& part : {folder_, folder_ / "checkpoints", folder_ / "models"}) {
    std::vector<std::filesystem::path> partial;
    for (const auto& entry : std::filesystem::directory_iterator(part)) {
      if (AtomicFile::is_partial(entry.path())) partial.push_back(entry.path());
    }
    for (const std::filesystem::path& file : partial) std::filesystem::remove(file);
  }
}

nlohmann::json RunFolder::earlier_summary() const {
  const std::filesystem::path file = folder_ / "summary.json";
  return std::filesystem::exists(file) ? read_json(file) : nlohmann::json();
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
