// What a sample means to a run: which class a label is, and how stored values become a model's input. All silos of a
// run must mean the same, or its model learns nonsense without a word.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shared/base/fields.hpp"
#include "shared/learn/data/data_set.hpp"

namespace headstart::learn {

/// How values are stored: uint8 is divided by 255, float32 is used as it is.
enum class Stored { unknown, uint8, float32 };
inline constexpr std::pair<Stored, std::string_view> stored_words[] = {
    {Stored::unknown, "unknown"}, {Stored::uint8, "uint8"}, {Stored::float32, "float32"}};
Stored stored_of(const Dataset& dataset);

/// The least deviation that a run may divide by.
inline constexpr double smallest_deviation = 1e-30;

/// A model sees (value - mean) / deviation, where value is a stored one, of uint8 divided by 255.
struct SampleTerms {
  std::vector<std::string> classes;  ///< Names by label, as many as there are classes.
  Stored stored = Stored::unknown;   ///< The run's own samples; unknown: it holds none.
  /// The least and the greatest value before it is normalised: 0 and 1 for uint8, of float32 what the run's own samples
  /// show; where the run holds none, what its settings say, or empty.
  std::vector<double> range;
  std::vector<double> mean, deviation;  ///< Per channel, deviation above 0; empty: values are not normalised.
  TableTerms table;                     ///< Where the run's samples are rows of tables.
};
/// "samples.classes", ... under `prefix`.
void declare_fields(Fields& fields, const std::string& prefix, SampleTerms& terms);

/// "0" to "N-1": the names of classes that have none.
std::vector<std::string> numbered_classes(std::int64_t num_classes);

/// Throws Error(data), naming the class: a name that is empty, stands twice, has more than 256 bytes, control
/// characters or no UTF-8.
void require_class_names(const std::vector<std::string>& names);
/// Two names that differ only in the case of their ASCII letters.
std::optional<std::pair<std::string, std::string>> names_that_differ_in_case(const std::vector<std::string>& names);
/// In quotation marks, what is not ASCII escaped, and cut where the list is long.
std::string list_text(const std::vector<std::string>& names);

/// What a data set says of its classes.
struct ClassList {
  std::vector<std::string> names;  ///< By label, but for `folders`, where only the set counts; empty: none.
  std::int64_t count = 0;          ///< As stated; of `labels`, one more than the largest.
  ClassSource source = ClassSource::labels;
};
ClassList class_list(const Dataset& dataset);
/// Why these are not the run's classes, with both lists and what to do; nothing where they are. Class folders are a
/// part of the run's classes, names that are stated by label are the same list, and a stated number is the same.
std::optional<std::string> class_misfit(const ClassList& own, const std::vector<std::string>& run);

/// The labels by the run's numbering. Throws Error(data): class_misfit(), or a label beyond the run's classes, by file
/// and index.
Tensor labels_in(const Dataset& dataset, const std::vector<std::string>& classes);
/// A table with samples and labels as the run has its columns and classes; another data set as it is. Throws
/// Error(data) as encoded() does, or where the silo's own schema is another than the run's; Error(usage) for a table
/// where the run has none.
Dataset in_terms(const Dataset& dataset, const SampleTerms& run);
/// The samples before they are normalised, float32, uint8 divided by 255, a missing value NaN; labels by the run's
/// numbering. Throws as in_terms() and labels_in() do.
Samples stored_input(const Dataset& dataset, const SampleTerms& run);
/// The samples as a model of the run sees them, by the run's constants and not those of `dataset`. Throws as
/// in_terms() and labels_in() do, or where there are not as many constants as channels.
Samples model_input(const Dataset& dataset, const SampleTerms& run);

/// What `dataset` itself means, as the terms of a run over it.
SampleTerms sample_terms(const Dataset& dataset);

}  // namespace headstart::learn
