#include "shared/learn/data/sample_figures.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/types.h>

#include "shared/base/error.hpp"

namespace headstart::learn {

namespace {

constexpr std::int64_t max_figure_samples = 1'000'000'000'000'000;

/// What one channel's values, or all of them, come to.
struct Moments {
  double min = 0, max = 0, sum = 0, sum_of_squares = 0, count = 0;

  void add(const Moments& other) {
    if (other.count == 0) return;
    min = count == 0 ? other.min : std::min(min, other.min);
    max = count == 0 ? other.max : std::max(max, other.max);
    sum += other.sum;
    sum_of_squares += other.sum_of_squares;
    count += other.count;
  }
  [[nodiscard]] double mean() const { return sum / count; }
  [[nodiscard]] double deviation() const { return std::sqrt(std::max(0.0, sum_of_squares / count - mean() * mean())); }
  [[nodiscard]] double magnitude() const { return std::max(std::abs(min), std::abs(max)); }
  [[nodiscard]] double root_mean_square() const { return std::sqrt(sum_of_squares / count); }
};

/// values: uint8, of any shape, not empty.
Moments moments_of_bytes(const Tensor& values) {
  const Tensor counts = torch::bincount(values.reshape({-1}), {}, 256);
  const auto count = counts.accessor<std::int64_t, 1>();
  Moments moments;
  for (std::int64_t byte = 0; byte < 256; ++byte) {
    if (count[byte] == 0) continue;
    const double value = static_cast<double>(byte) / 255;
    const auto times = static_cast<double>(count[byte]);
    moments.add({value, value, times * value, times * value * value, times});
  }
  return moments;
}

/// values: float32.
Moments moments_of_floats(const Tensor& values) {
  constexpr std::int64_t rows_at_once = 1024;
  Moments moments;
  if (values.numel() == 0) return {0, 0, 0, 0, 1};
  for (const Tensor& part : values.split(rows_at_once)) {
    const Tensor wide = part.to(at::kDouble);
    moments.add({wide.min().item<double>(), wide.max().item<double>(), wide.sum().item<double>(),
                 wide.square().sum().item<double>(), static_cast<double>(wide.numel())});
  }
  return moments;
}

void append(SampleFigures& figures, const Moments& moments) {
  figures.min.push_back(moments.min);
  figures.max.push_back(moments.max);
  figures.mean.push_back(moments.mean());
  figures.deviation.push_back(moments.deviation());
}

/// Back to sums, as if each sample had one value a channel.
Moments channel_of(const SampleFigures& figures, std::size_t channel) {
  const auto count = static_cast<double>(figures.num_samples);
  const double mean = figures.mean[channel];
  const double deviation = figures.deviation[channel];
  return {figures.min[channel], figures.max[channel], count * mean, count * (mean * mean + deviation * deviation),
          count};
}

Moments all_of(const SampleFigures& figures) {
  Moments moments;
  for (std::size_t i = 0; i < figures.mean.size(); ++i) moments.add(channel_of(figures, i));
  return moments;
}

std::string numbers_text(const std::vector<double>& values) {
  constexpr std::size_t most = 4;
  std::string text;
  for (std::size_t i = 0; i < std::min(values.size(), most); ++i)
    text += fmt::format("{}{:.4g}", i > 0 ? ", " : "", values[i]);
  return values.size() > most ? text + ", ..." : text;
}

std::string advice_for(const SampleFigures& own, const Moments& mine, const Moments& theirs, Stored run_stored) {
  const double ratio = theirs.magnitude() > 0 ? mine.magnitude() / theirs.magnitude() : 0;
  constexpr double near_255 = 100;
  const bool may_be_bytes = mine.min >= 0 && mine.max <= 255 && mine.max > 1.5;
  if (own.stored == Stored::float32 && may_be_bytes && ratio > near_255 && ratio < 1000) {
    return "Divide the values by 255, or store them as uint8";
  }
  if (own.stored == Stored::uint8 && run_stored != Stored::uint8) {
    return "uint8 is divided by 255: store the samples as float32, scaled as the run's, or have all store uint8";
  }
  return "Store the samples in the same type and scale as the run's";
}

std::string of_both(const SampleFigures& own, std::string_view theirs) {
  return fmt::format("{} here, {}", words_of(own), theirs);
}

}  // namespace

void declare_fields(Fields& fields, const std::string& prefix, SampleFigures& figures) {
  fields.choice(prefix + ".stored", figures.stored, "How the samples are stored.", Choices<Stored>(stored_words));
  fields.integer(prefix + ".samples", figures.num_samples, "Their number.",
                 {1, static_cast<double>(max_figure_samples)});
  constexpr double most = 1e39;  // more than a float32 can be; what is made of its square is finite
  fields.numbers(prefix + ".min", figures.min, "Least value per channel.", {-most, most});
  fields.numbers(prefix + ".max", figures.max, "Greatest value per channel.", {-most, most});
  fields.numbers(prefix + ".mean", figures.mean, "Mean per channel.", {-most, most});
  fields.numbers(prefix + ".deviation", figures.deviation, "Standard deviation per channel.", {0, most});
}

void require_whole(const SampleFigures& figures) {
  const std::size_t count = figures.mean.size();
  const bool is_whole = count > 0 && count <= static_cast<std::size_t>(max_figure_channels) &&
                        figures.min.size() == count && figures.max.size() == count &&
                        figures.deviation.size() == count && figures.num_samples > 0;
  if (!is_whole) throw Error(Errc::data, "figures of samples: not as many of each as there are channels");
}

SampleFigures figures_of(const Dataset& dataset) {
  const bool is_bytes = stored_of(dataset) == Stored::uint8;
  SampleFigures figures{is_bytes ? Stored::uint8 : Stored::float32, dataset.size(), {}, {}, {}, {}};
  const auto moments_of = [&](const Tensor& values) {
    if (dataset.table) return moments_of_floats(values.masked_select(values.isnan().logical_not()));
    return is_bytes ? moments_of_bytes(values) : moments_of_floats(values);
  };
  if (dataset.images.size(1) > max_figure_channels) {
    append(figures, moments_of(dataset.images));
    return figures;
  }
  for (std::int64_t channel = 0; channel < dataset.images.size(1); ++channel) {
    append(figures, moments_of(dataset.images.select(1, channel)));
  }
  return figures;
}

SampleFigures pooled(const std::vector<SampleFigures>& parts) {
  SampleFigures whole;
  for (const SampleFigures& part : parts) {
    whole.num_samples = std::min(whole.num_samples + part.num_samples, max_figure_samples);
    // Where one stores bytes, no value of the others can lie beyond 0 to 1 either.
    if (whole.stored != Stored::uint8) whole.stored = part.stored;
  }
  for (std::size_t channel = 0; channel < parts.front().mean.size(); ++channel) {
    Moments moments;
    for (const SampleFigures& part : parts) {
      if (channel < part.mean.size()) moments.add(channel_of(part, channel));
    }
    append(whole, moments);
  }
  return whole;
}

std::string words_of(const SampleFigures& figures) {
  const Moments all = all_of(figures);
  return fmt::format("{} from {:.4g} to {:.4g}, mean {}, deviation {}",
                     figures.stored == Stored::uint8 ? "uint8, divided by 255,"
                                                     : word_of(Choices<Stored>(stored_words), figures.stored),
                     all.min, all.max, numbers_text(figures.mean), numbers_text(figures.deviation));
}

std::string odd_inputs(const SampleFigures& own, const SampleTerms& run) {
  const bool is_per_channel = run.mean.empty() || run.mean.size() == own.mean.size();
  for (std::size_t i = 0; is_per_channel && i < own.mean.size(); ++i) {
    const double scale = run.deviation.empty() ? 1 : run.deviation[i];
    const double mean = (own.mean[i] - (run.mean.empty() ? 0 : run.mean[i])) / scale;
    const double deviation = own.deviation[i] / scale;
    const bool is_odd = std::abs(mean) > largest_input_mean || deviation < smallest_input_deviation ||
                        deviation > largest_input_deviation;
    if (!is_odd) continue;
    const std::string constants =
        run.mean.empty() ? std::string("and the run normalises nothing (data.mean, data.deviation)")
                         : fmt::format("and the run's mean is {:.4g}, its deviation {:.4g}", run.mean[i], scale);
    return fmt::format(
        "the model would see values of mean {:.4g} and deviation {:.4g}{}, from which it hardly learns: "
        "stored are {}, {}. {}",
        mean, deviation, own.mean.size() > 1 ? fmt::format(" in channel {}", i) : "", words_of(own), constants,
        own.stored == Stored::uint8
            ? "uint8 is divided by 255 first: constants are for values of 0 to 1, and codes or 0/1 "
              "features belong into float32"
            : "Scale the values, or set the two constants");
  }
  return {};
}

FiguresVerdict compare(const SampleFigures& own, const SampleTerms& run, const Task& task,
                       const std::optional<Reference>& reference) {
  const Moments mine = all_of(own);
  const std::string theirs = reference ? fmt::format("{} at {}", words_of(reference->figures), reference->whose)
                             : run.range.size() == 2
                                 ? fmt::format("{:.4g} to {:.4g} in the run", run.range[0], run.range[1])
                                 : std::string();
  const Stored stored = run.stored != Stored::unknown || !reference ? run.stored : reference->figures.stored;
  const auto refusal = [&](const Moments& other) {
    return FiguresVerdict{fmt::format("the values of its samples cannot be those of the run: {}. {}",
                                      of_both(own, theirs), advice_for(own, mine, other, stored)),
                          {}};
  };
  const auto lies_beyond = [](const Moments& values, double low, double high) {
    const double slack = range_slack * (high - low);
    return values.min < low - slack || values.max > high + slack;
  };
  // Of float32 samples that the run holds itself the range is only what happened to be seen.
  const bool is_stated = run.stored != Stored::float32 && run.range.size() == 2;
  if (is_stated && lies_beyond(mine, run.range[0], run.range[1])) {
    return refusal({run.range[0], run.range[1], 0, 0, 0});
  }
  if (!reference) return {};
  const Moments other = all_of(reference->figures);
  if (!is_stated && stored == Stored::uint8 && lies_beyond(mine, 0, 1)) return refusal(other);
  if (stored == Stored::float32 && own.stored == Stored::uint8 && lies_beyond(other, 0, 1)) return refusal(other);
  const auto is_larger = [](const Moments& a, const Moments& b) {
    return a.magnitude() > scale_ratio * b.magnitude() && a.root_mean_square() > scale_ratio * b.root_mean_square();
  };
  // Zeros alone have no scale, and bytes only one, but for 0 and 1 stored as bytes. What is odd is warned of below.
  const bool is_blank = mine.magnitude() == 0 || other.magnitude() == 0;
  const bool are_bytes = own.stored == Stored::uint8 && reference->figures.stored == Stored::uint8 &&
                         std::min(mine.magnitude(), other.magnitude()) > 1.5 / 255;
  if (!is_blank && !are_bytes && (is_larger(mine, other) || is_larger(other, mine))) return refusal(other);
  const bool has_many_values = num_values(task.shape) >= few_values;
  const auto has_negative = [](const Moments& values) { return values.min < -range_slack * values.magnitude(); };
  // A few values below 0 may be of classes that the other lacks; samples scaled to -1..1 or standardised are mostly
  // near 0.
  const auto is_around_zero = [](const Moments& values) { return values.mean() < values.deviation(); };
  const Moments* const negative = mine.min >= 0 && has_negative(other)   ? &other
                                  : other.min >= 0 && has_negative(mine) ? &mine
                                                                         : nullptr;
  const bool differs_in_sign = negative != nullptr && has_many_values && !is_blank;
  if (differs_in_sign && is_around_zero(*negative)) return refusal(other);

  const bool is_per_channel = own.mean.size() == reference->figures.mean.size();
  for (std::size_t i = 0; is_per_channel && i < own.mean.size(); ++i) {
    const double one = own.deviation[i];
    const double two = reference->figures.deviation[i];
    const bool is_far = std::abs(own.mean[i] - reference->figures.mean[i]) > mean_distance * std::max(one, two);
    if (!is_far && std::max(one, two) <= deviation_ratio * std::min(one, two)) continue;
    return {
        {},
        fmt::format("the values of its samples lie far from the run's{}: {}. If that is not due to which classes are "
                    "here, the samples are stored or scaled in another way",
                    own.mean.size() > 1 ? fmt::format(" (channel {})", i) : "", of_both(own, theirs))};
  }
  if (differs_in_sign) {
    return {
        {},
        fmt::format("the samples of one side alone have values below 0: {}. If that is not due to which classes are "
                    "here, the samples are scaled in another way",
                    of_both(own, theirs))};
  }
  return {};
}

void require_alike(const Dataset& train, const Dataset& test) {
  if (train.images.sizes().slice(1) != test.images.sizes().slice(1) || train.size() == 0 || test.size() == 0) return;
  const FiguresVerdict verdict =
      compare(figures_of(train), sample_terms(test), test.task(), Reference{"the test split", figures_of(test)});
  if (!verdict.refusal.empty()) {
    throw Error(Errc::data, fmt::format("data set {}, training split: {}", train.name, verdict.refusal));
  }
}

}  // namespace headstart::learn
