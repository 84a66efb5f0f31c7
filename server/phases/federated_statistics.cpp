#include "server/phases/federated_statistics.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "server/sessions/client_tasks.hpp"
#include "shared/base/printable.hpp"
#include "shared/learn/data/feature_statistics.hpp"
#include "shared/net/offload.hpp"

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
    const double count = statistics.count.data_ptr<double>()[i];
    const double missing = statistics.missing.data_ptr<double>()[i];
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

/// Of one feature.
struct Moments {
  double count = 0, mean = 0, squares = 0;
  [[nodiscard]] double deviation() const { return std::sqrt(std::max(0.0, squares / count)); }
};

Moments moments_of(const FeatureStatistics& all, std::int64_t feature) {
  return {all.count.data_ptr<double>()[feature], all.mean.data_ptr<double>()[feature],
          all.squares.data_ptr<double>()[feature]};
}

/// What is left of `total` without `part`, where something is.
Moments rest_of(const Moments& total, const Moments& part) {
  Moments rest{.count = total.count - part.count};
  rest.mean = (total.count * total.mean - part.count * part.mean) / rest.count;
  const double distance = rest.mean - part.mean;
  rest.squares = total.squares - part.squares - distance * distance * part.count * rest.count / total.count;
  return rest;
}

/// The first feature of the silo that lies far from the others': stored in another unit, or of other people. Empty
/// where none does.
std::string note_on(const SiloStatistics& silo, const FeatureStatistics& total, const std::vector<std::string>& names) {
  for (std::int64_t i = 0; i < total.size(); ++i) {
    const Moments own = moments_of(silo.statistics, i);
    const Moments all = moments_of(total, i);
    if (own.count == 0 || all.count <= own.count) continue;
    const Moments others = rest_of(all, own);
    const double most = std::max(own.deviation(), others.deviation());
    // What does not vary differs by roundings.
    const double noise = 1e-6 * std::max(std::abs(own.mean), std::abs(others.mean));
    if (std::max(most, std::abs(own.mean - others.mean)) <= noise) continue;
    const bool is_far = std::abs(own.mean - others.mean) > learn::mean_distance * most;
    if (!is_far && most <= learn::deviation_ratio * std::min(own.deviation(), others.deviation())) continue;
    return fmt::format(
        "{}: feature {} has mean {:.4g} and deviation {:.4g}, and {:.4g} and {:.4g} at the other silos: is it in "
        "another unit there?",
        silo.name, quotation(names[static_cast<std::size_t>(i)]), own.mean, own.deviation(), others.mean,
        others.deviation());
  }
  return {};
}

nlohmann::json numbers_of(const learn::Tensor& tensor) {
  const learn::Tensor held = tensor.contiguous();
  return std::vector<double>(held.data_ptr<double>(), held.data_ptr<double>() + held.numel());
}

/// What all silos that say something come to, and what is to be noted.
struct Conclusion {
  StatisticsRecord record;
  std::vector<std::string> notes;
};

Conclusion conclude(const std::vector<SiloStatistics>& silos, const std::vector<std::string>& silent,
                    const learn::TableTerms& table) {
  FeatureStatistics total = silos.front().statistics;
  for (std::size_t i = 1; i < silos.size(); ++i) total = learn::merged(total, silos[i].statistics);
  const std::vector<std::string> names = learn::feature_names(table, total.size());
  Conclusion conclusion;
  std::vector<std::string> speaking;
  for (const SiloStatistics& silo : silos) {
    speaking.push_back(silo.name);
    if (std::string note = note_on(silo, total, names); !note.empty()) conclusion.notes.push_back(std::move(note));
  }
  learn::FeatureScaling scaling = learn::scaling_of(total, table);
  nlohmann::json report = {{"features", names},
                           {"count", numbers_of(total.count)},
                           {"missing", numbers_of(total.missing)},
                           {"mean", scaling.mean},
                           {"deviation", scaling.deviation},
                           {"least", total.has_range ? numbers_of(total.least) : nlohmann::json()},
                           {"greatest", total.has_range ? numbers_of(total.greatest) : nlohmann::json()},
                           {"silos", speaking},
                           {"silent", silent}};
  conclusion.record = {std::move(scaling.mean), std::move(scaling.deviation), std::move(report)};
  return conclusion;
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
  std::vector<std::string> silent;
  for (auto& answer : answers) {
    const std::string& name = answer.client->name();
    if (!answer.value) {
      context.leave_out({PhaseKind::describing}, name, answer.reason);
    } else if (answer.value->num_samples == 0) {
      silent.push_back(name);
    } else {
      silos.push_back(std::move(*answer.value));
    }
  }
  if (silos.empty()) {
    throw Error(Errc::run_failed,
                "no silo says anything of its features, which data.statistics federated needs: all failed, or have "
                "fewer samples than their statistics.min_samples");
  }
  auto concluding = net::offload(context.pool, [&] { return conclude(silos, silent, context.data.samples.table); });
  Conclusion conclusion = co_await std::move(concluding);
  for (const std::string& note : conclusion.notes) context.observer.on_note(note);
  co_return std::move(conclusion.record);
}

}  // namespace headstart::server
