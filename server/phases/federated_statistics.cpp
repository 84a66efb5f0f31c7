#include "server/phases/federated_statistics.hpp"

#include <cmath>

#include <fmt/format.h>

#include "server/sessions/client_tasks.hpp"
#include "shared/base/printable.hpp"
#include "shared/learn/data/feature_statistics.hpp"

namespace headstart::server {

namespace {

using learn::FeatureStatistics;

struct SiloStatistics {
  std::string name;
  std::int64_t num_samples = 0;  ///< 0: it says nothing.
  FeatureStatistics statistics;
};

/// What `packed` says. Throws Error(run_failed) where the announced samples cannot have it.
FeatureStatistics checked(const learn::Tensor& packed, const plan::DescribeFigures& figures, const CentralData& data) {
  FeatureStatistics statistics;
  try {
    statistics = learn::unpacked(packed, figures.has_range);
  } catch (const Error& error) {
    throw Error(Errc::run_failed, error.what());
  }
  const std::int64_t per_sample = learn::num_values(data.task.shape) / data.task.shape.front();
  const auto expected = static_cast<double>(figures.num_samples * per_sample);
  const std::vector<learn::TableFeature> features = learn::table_features(data.samples.table);
  bool is_whole = true;
  for (std::int64_t i = 0; i < statistics.size(); ++i) {
    const auto count = statistics.count[i].item<double>();
    const auto missing = statistics.missing[i].item<double>();
    // Of a feature that is no number only the missing values are said.
    const bool is_number = features.empty() || features[static_cast<std::size_t>(i)].is_number;
    is_whole = is_whole && (is_number ? count + missing == expected : count == 0 && missing <= expected);
  }
  if (is_whole) return statistics;
  throw Error(Errc::run_failed,
              fmt::format("its statistics are of other numbers of values than {} samples have", figures.num_samples));
}

net::Task<SiloStatistics> ask_for_statistics(const RunContext& context, ClientSession& client) {
  const std::int64_t num_features = context.data.task.shape.front();
  auto asking = describe(client, num_features);
  Description answer = co_await std::move(asking);
  SiloStatistics result{client.name(), answer.figures.num_samples, {}};
  const learn::Schema schema({{"statistics", c10::ScalarType::Double, {6, num_features}}});
  const auto look = [&](const wire::PackedState& state) {
    result.statistics = checked(state.state().tensors().front().tensor.clone(), answer.figures, context.data);
  };
  const std::string what = "statistics of the features";
  auto taking = take_tensors(context.intake(), client.name(), answer.upload, schema, what, look);
  co_await std::move(taking);
  co_return result;
}

FeatureStatistics merged_but(const std::vector<SiloStatistics>& silos, const SiloStatistics* left_out) {
  std::optional<FeatureStatistics> total;
  for (const SiloStatistics& silo : silos) {
    if (&silo == left_out) continue;
    total = total ? learn::merged(*total, silo.statistics) : silo.statistics;
  }
  return *total;
}

/// The first feature of a silo that lies far from the others': stored in another unit, or of other people.
void note_far(const RunContext& context, const std::vector<SiloStatistics>& silos,
              const std::vector<std::string>& names) {
  if (silos.size() < 2) return;
  for (const SiloStatistics& silo : silos) {
    const FeatureStatistics others = merged_but(silos, &silo);
    for (std::int64_t i = 0; i < others.size(); ++i) {
      const auto figures = [i](const FeatureStatistics& all) {
        const auto count = all.count[i].item<double>();
        return std::pair(all.mean[i].item<double>(), count > 0 ? std::sqrt(all.squares[i].item<double>() / count) : 0);
      };
      if (silo.statistics.count[i].item<double>() == 0 || others.count[i].item<double>() == 0) continue;
      const auto [mean, deviation] = figures(silo.statistics);
      const auto [other_mean, other_deviation] = figures(others);
      const double most = std::max(deviation, other_deviation);
      const bool is_far = std::abs(mean - other_mean) > learn::mean_distance * most;
      if (!is_far && most <= learn::deviation_ratio * std::min(deviation, other_deviation)) continue;
      context.observer.on_note(fmt::format(
          "{}: feature {} has mean {:.4g} and deviation {:.4g}, and {:.4g} and {:.4g} at the other silos: "
          "is it in another unit there?",
          silo.name, quotation(names[static_cast<std::size_t>(i)]), mean, deviation, other_mean, other_deviation));
      break;
    }
  }
}

nlohmann::json numbers_of(const learn::Tensor& tensor) {
  const learn::Tensor held = tensor.contiguous();
  return std::vector<double>(held.data_ptr<double>(), held.data_ptr<double>() + held.numel());
}

}  // namespace

net::Task<StatisticsRecord> collect_statistics(const RunContext& context) {
  const auto clients = context.roster.active();
  context.observer.on_phase({PhaseKind::describing}, clients.size());
  const auto ask = [&context](ClientSession& client) { return ask_for_statistics(context, client); };
  auto asking = context.roster.ask<SiloStatistics>(clients, ask);
  auto answers = co_await std::move(asking);
  if (context.stop.stop_requested()) throw Error(Errc::interrupted, "stopped while silos described their features");
  std::vector<SiloStatistics> silos;
  std::vector<std::string> speaking, silent;
  for (auto& answer : answers) {
    const std::string& name = answer.client->name();
    if (!answer.value) {
      context.leave_out({PhaseKind::describing}, name, answer.reason);
    } else if (answer.value->num_samples == 0) {
      silent.push_back(name);
    } else {
      speaking.push_back(name);
      silos.push_back(std::move(*answer.value));
    }
  }
  if (silos.empty()) {
    throw Error(Errc::run_failed,
                "no silo says anything of its features, which data.statistics federated needs: all failed, or have "
                "fewer samples than their statistics.min_samples");
  }
  const learn::TableTerms& table = context.data.samples.table;
  const FeatureStatistics total = merged_but(silos, nullptr);
  const std::vector<std::string> names = learn::feature_names(table, total.size());
  note_far(context, silos, names);
  const learn::FeatureScaling scaling = learn::scaling_of(total, table);
  nlohmann::json report = {{"features", names},
                           {"count", numbers_of(total.count)},
                           {"missing", numbers_of(total.missing)},
                           {"mean", scaling.mean},
                           {"deviation", scaling.deviation},
                           {"least", total.has_range ? numbers_of(total.least) : nlohmann::json()},
                           {"greatest", total.has_range ? numbers_of(total.greatest) : nlohmann::json()},
                           {"silos", speaking},
                           {"silent", silent}};
  co_return StatisticsRecord{scaling.mean, scaling.deviation, std::move(report)};
}

}  // namespace headstart::server
