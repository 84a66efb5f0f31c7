// How the values of a data set lie, in a few figures: enough to notice that two silos do not store the same.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "shared/base/fields.hpp"
#include "shared/learn/data/data_set.hpp"
#include "shared/learn/data/sample_terms.hpp"

namespace headstart::learn {

/// Of values as they are before they are normalised, uint8 divided by 255. Per channel; one for all where there are
/// more than max_figure_channels.
struct SampleFigures {
  Stored stored = Stored::unknown;
  std::int64_t num_samples = 0;
  std::vector<double> min, max, mean, deviation;
};
inline constexpr std::int64_t max_figure_channels = 16;
/// "figures.min", ... under `prefix`.
void declare_fields(Fields& fields, const std::string& prefix, SampleFigures& figures);
/// Throws Error(data) where there are none, not as many of each, or more than max_figure_channels.
void require_whole(const SampleFigures& figures);

/// Of a data set with a sample at least.
SampleFigures figures_of(const Dataset& dataset);
/// Of several data sets of the same shape together, one at least.
SampleFigures pooled(const std::vector<SampleFigures>& parts);

/// "float32 from 0 to 255, mean 127.3, deviation 60.1".
std::string words_of(const SampleFigures& figures);

/// Figures to compare with, and whose they are ("the server", "silo-0, silo-1").
struct Reference {
  std::string whose;
  SampleFigures figures;
};

/// At most one is not empty.
struct FiguresVerdict {
  std::string refusal;  ///< The two cannot mean the same, with the numbers of both and what to do.
  std::string warning;  ///< They lie far apart, with the numbers of both.
};

// How far apart is too far. Silos hold other classes in other shares than the server (label skew): that moves means and
// deviations, but not what a value can be.
inline constexpr double range_slack = 0.1;     ///< Refused: beyond the run's range by more than this part of it.
inline constexpr double scale_ratio = 10;      ///< Refused: largest magnitude and root mean square both differ by more.
inline constexpr double mean_distance = 0.75;  ///< Warned of: means further apart, in deviations (the larger one).
inline constexpr double deviation_ratio = 4;   ///< Warned of: deviations that differ by more.
inline constexpr std::int64_t few_values = 8;  ///< A sample of fewer values may be all positive by chance.

/// Whether `own` can be samples of a run with these terms. `reference`: figures of samples that the run takes for
/// right; nothing where it knows none yet.
FiguresVerdict compare(const SampleFigures& own, const SampleTerms& run, const Task& task,
                       const std::optional<Reference>& reference);

// What a model can learn from at the usual rates: inputs far from 0, or nearly all the same, come from constants or
// types that do not belong to the values.
inline constexpr double largest_input_mean = 10;  ///< Of a channel's normalised values, in magnitude.
inline constexpr double smallest_input_deviation = 0.05;
inline constexpr double largest_input_deviation = 20;

/// A sentence where the values, normalised by the run's constants, are no inputs that a model learns from; empty
/// otherwise. All silos may have stored the same, and then no comparison shows it.
std::string odd_inputs(const SampleFigures& own, const SampleTerms& run);

/// The splits of one set are stored alike, so that the same constants hold for both. Nothing is compared where the
/// shapes differ, or a split is empty. Throws Error(data) with the figures of both.
void require_alike(const Dataset& train, const Dataset& test);

}  // namespace headstart::learn
