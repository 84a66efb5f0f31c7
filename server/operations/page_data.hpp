// What the page draws, as JSON: made of the records of a run, under way or finished.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

#include <nlohmann/json.hpp>

namespace headstart::server {

/// Notes and events that a page keeps: the newest.
inline constexpr std::size_t max_page_notes = 500;

/// What a run is called: the name of its folder.
std::string run_name(const std::filesystem::path& folder);

// Each takes what it knows of a record and leaves out the rest: keys that are missing or of another type are no error.

/// Of run.json: what a reader wants to know of the run before there is a round.
nlohmann::json run_facts(const nlohmann::json& run);
/// Of a line of rounds.jsonl: one point of the curves. Without what is of single silos, but for `excluded`.
nlohmann::json round_point(const nlohmann::json& line);
/// Of the same line: what the page shows of the newest round alone, `norms`, `refused`, `silo_metrics` of the silos and
/// `class_accuracy`.
nlohmann::json newest_round(const nlohmann::json& line);
/// Of summary.json: how the run went.
nlohmann::json run_end(const nlohmann::json& summary, bool is_failure);

/// `class_counts` of the manifest, [shares][classes]; null where `manifest` is empty, cannot be read or has none.
nlohmann::json partition_counts(const std::filesystem::path& manifest);

/// The curve of another run: `name`, `rounds` and, where its summary says it, `before_rounds`. `run`: its folder, or
/// its rounds.jsonl. Throws Error(data) where there are no rounds.
nlohmann::json reference_run(const std::filesystem::path& run);

/// A run as its folder has it, in one object: what RunPage sends, but for what only a server knows. Throws Error(data)
/// where the folder holds no run.
nlohmann::json recorded_run(const std::filesystem::path& folder);

}  // namespace headstart::server
