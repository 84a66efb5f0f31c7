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
  run_folder_ = folder_ / plan::digest_of(terms).substr(0, num_digits);
  try {
    make_private_folder(run_folder_);
    write_text_atomically(run_folder_ / "terms.json", nlohmann::json::parse(plan::to_json_text(terms)).dump(2) + "\n");
  } catch (const Error& error) {
    spdlog::warn("keep.folder: {}; the models of this run may not be kept", error.what());
  }
  return join;
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
  const nlohmann::json figures = nlohmann::json::parse(worker_->perform(evaluating, context).figures);
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
  const nlohmann::json held_out = measured(assignment, context);
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
  const nlohmann::json line = {{"round", settings.round},
                               {"is_best", settings.is_best},
                               {"took_part", settings.took_part},
                               {"held_out", held_out},
                               {"model", model.digest}};
  try {
    const wire::Metadata metadata = plan::metadata_of(terms_, settings.round);
    wire::save_safetensors(run_folder_ / "last.safetensors", model.state, metadata);
    if (settings.is_best) wire::save_safetensors(run_folder_ / "best.safetensors", model.state, metadata);
    std::ofstream lines(run_folder_ / "rounds.jsonl", std::ios::app);
    lines << line.dump() << '\n';
    if (!lines.flush()) throw Error(Errc::storage, (run_folder_ / "rounds.jsonl").string() + ": cannot be written");
  } catch (const Error& error) {
    spdlog::warn("keep.folder: the model of round {} is not kept: {}", settings.round, error.what());
  }
}

}  // namespace headstart::client
