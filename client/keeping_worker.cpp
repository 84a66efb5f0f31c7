#include "client/keeping_worker.hpp"

#include <algorithm>
#include <fstream>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/base/log.hpp"
#include "shared/base/printable.hpp"
#include "shared/wire/safetensors.hpp"

namespace headstart::client {

namespace {

constexpr std::size_t num_digits = 12;  ///< Of the digest of the terms, in the folder's name.
constexpr std::size_t max_names = 8;    ///< In the line of a round.

std::int64_t sum_of(const nlohmann::json& counts) {
  std::int64_t sum = 0;
  for (const nlohmann::json& count : counts) sum += count.get<std::int64_t>();
  return sum;
}

std::string words_on(const std::vector<std::string>& names) {
  std::vector<std::string> shown;
  for (const std::string& name : names) {
    if (shown.size() < max_names) shown.push_back(printable(name, 64));
  }
  const std::size_t others = names.size() - shown.size();
  return fmt::format("{}{}", fmt::join(shown, ", "), others > 0 ? fmt::format(" and {} others", others) : "");
}

}  // namespace

KeepingWorker::KeepingWorker(std::unique_ptr<Worker> worker, std::filesystem::path folder)
    : worker_(std::move(worker)), folder_(std::move(folder)) {
  make_private_folder(folder_);
}

std::vector<std::string> KeepingWorker::kinds() const {
  std::vector<std::string> kinds = worker_->kinds();
  kinds.emplace_back(plan::task::keep);
  return kinds;
}

wire::Join KeepingWorker::join(const plan::Terms& terms) {
  wire::Join join = worker_->join(terms);
  terms_ = terms;
  terms_of_files_ = terms;
  run_folder_.clear();
  return join;
}

void KeepingWorker::open_run_folder(std::int64_t round) {
  const std::string name = plan::digest_of(terms_).substr(0, num_digits);
  const auto is_taken = [](const std::filesystem::path& folder) {
    return is_there(folder / "rounds.jsonl", Errc::storage);
  };
  // A run that begins again has a folder of its own; one that goes on has the last of these terms.
  std::filesystem::path folder = folder_ / name;
  for (int number = 2; is_taken(folder); ++number) {
    const std::filesystem::path next = folder_ / fmt::format("{}-{}", name, number);
    if (round > 0 && !is_taken(next)) break;
    folder = next;
  }
  make_private_folder(folder);
  if (!is_there(folder / "terms.json", Errc::storage)) {
    write_text_atomically(folder / "terms.json", nlohmann::json::parse(plan::to_json_text(terms_)).dump(2) + "\n");
  }
  run_folder_ = folder;
}

std::string KeepingWorker::describe(const Assignment& assignment) const {
  return assignment.kind == plan::task::keep ? "" : worker_->describe(assignment);
}

TaskResult KeepingWorker::perform(const Assignment& assignment, const TaskContext& context) {
  if (assignment.kind != plan::task::keep) return worker_->perform(assignment, context);
  keep(assignment, context);
  return {};
}

nlohmann::json KeepingWorker::measured(const Assignment& assignment, const TaskContext& context) {
  const std::vector<std::string> kinds = worker_->kinds();
  if (std::ranges::find(kinds, plan::task::evaluate) == kinds.end()) return nullptr;
  const Assignment evaluating{std::string(plan::task::evaluate), "", assignment.inputs};
  nlohmann::json figures;
  try {
    figures = nlohmann::json::parse(worker_->perform(evaluating, context).figures);
  } catch (const Error& error) {
    if (error.code() == Errc::interrupted) throw;
    spdlog::warn("the model is kept and not measured here: {}", error.what());
    return nullptr;
  }
  const auto total = static_cast<double>(sum_of(figures.at("total")));
  if (total == 0) return nullptr;
  nlohmann::json held_out = {{"accuracy", static_cast<double>(sum_of(figures.at("correct"))) / total}};
  held_out["loss"] = nullptr;  // of a model that diverged
  if (!figures.value("diverged", false)) held_out["loss"] = figures.at("loss_sum").get<double>() / total;
  return held_out;
}

void KeepingWorker::keep(const Assignment& assignment, const TaskContext& context) {
  const plan::KeepSettings settings = plan::keep_settings_from_json_text(assignment.settings);
  const Input& model = assignment.input(plan::input::model);
  if (const auto scaling = assignment.inputs_named(plan::input::normalisation); !scaling.empty()) {
    const at::Tensor rows = scaling.front()->state.state().tensors().front().tensor.contiguous();
    const auto* first = rows.data_ptr<double>();
    terms_of_files_.samples.mean.assign(first, first + rows.size(1));
    terms_of_files_.samples.deviation.assign(first + rows.size(1), first + 2 * rows.size(1));
  }
  try {
    if (run_folder_.empty()) open_run_folder(settings.round);
    const wire::Metadata metadata = plan::metadata_of(terms_of_files_, settings.round);
    wire::save_safetensors(run_folder_ / "last.safetensors", model.state, metadata);
    if (settings.is_best) wire::save_safetensors(run_folder_ / "best.safetensors", model.state, metadata);
  } catch (const Error& error) {
    spdlog::warn("keep.folder: the model of round {} is not kept: {}", settings.round, error.what());
  }
  note(settings, model.digest, measured(assignment, context));
}

void KeepingWorker::note(const plan::KeepSettings& settings, const std::string& digest,
                         const nlohmann::json& held_out) {
  std::string figures;
  if (!held_out.is_null()) {
    figures =
        fmt::format("; on the held-out samples here accuracy {:.1f}%", 100 * held_out.at("accuracy").get<double>());
    if (held_out.at("loss").is_number()) figures += fmt::format(", loss {:.4f}", held_out.at("loss").get<double>());
  }
  const std::string whose =
      settings.took_part.empty()
          ? "the model that round 1 starts from"
          : fmt::format("the global model of {} clients ({})", settings.took_part.size(), words_on(settings.took_part));
  spdlog::info("round {} of {}: {}{}{}", settings.round, settings.num_rounds, whose, figures,
               settings.is_best ? "; the best so far" : "");
  if (run_folder_.empty()) return;
  const nlohmann::json line = {{"round", settings.round},
                               {"is_best", settings.is_best},
                               {"took_part", settings.took_part},
                               {"held_out", held_out},
                               {"model", digest}};
  std::ofstream lines(run_folder_ / "rounds.jsonl", std::ios::app);
  lines << line.dump() << '\n';
  if (!lines.flush()) spdlog::warn("keep.folder: {} cannot be written", (run_folder_ / "rounds.jsonl").string());
}

}  // namespace headstart::client
