#include "server/run_folder.hpp"

#include <fmt/format.h>

#include "shared/wire/safetensors.hpp"

namespace headstart::server {

namespace {

const std::filesystem::path& made(const std::filesystem::path& folder) {
  make_new_folder(folder);
  for (const char* part : {"checkpoints", "models", "staging"}) make_new_folder(folder / part);
  return folder;
}

}  // namespace

RunFolder::RunFolder(const std::filesystem::path& folder, CheckpointOptions checkpoints)
    : folder_(made(folder)), checkpoints_(checkpoints), rounds_(folder_ / "rounds.jsonl") {}

std::filesystem::path RunFolder::model_of(const std::string& client) const {
  return folder_ / "models" / (client + ".safetensors");
}

void RunFolder::write_run(const nlohmann::json& run) {
  write_text_atomically(folder_ / "run.json", run.dump(2) + "\n");
}

void RunFolder::write_port(std::uint16_t port) { write_text_atomically(folder_ / "port", fmt::format("{}\n", port)); }

void RunFolder::write_summary(const nlohmann::json& summary) {
  write_text_atomically(folder_ / "summary.json", summary.dump(2) + "\n");
}

void RunFolder::write_interrupted(const nlohmann::json& summary) {
  write_text_atomically(folder_ / "interrupted.json", summary.dump(2) + "\n");
}

void RunFolder::checkpoint(std::int64_t round, const wire::PackedState& model) {
  if (checkpoints_.every == 0 || round % checkpoints_.every != 0) return;
  const std::filesystem::path file = folder_ / "checkpoints" / fmt::format("round-{:05}.safetensors", round);
  wire::save_safetensors(file, model, {{"round", std::to_string(round)}});
  kept_.push_back(file);
  while (checkpoints_.keep > 0 && kept_.size() > static_cast<std::size_t>(checkpoints_.keep)) {
    std::filesystem::remove(kept_.front());
    kept_.erase(kept_.begin());
  }
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
