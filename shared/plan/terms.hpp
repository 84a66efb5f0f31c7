// The terms of a run: what every client must do alike. Declared once; they stand in the server's configuration and
// travel to the clients in Welcome, which read them with the same bounds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "shared/base/fields.hpp"
#include "shared/base/seed.hpp"
#include "shared/learn/data/sample_figures.hpp"
#include "shared/learn/data/sample_terms.hpp"
#include "shared/learn/distill/distill_options.hpp"
#include "shared/learn/models/mixed_precision.hpp"
#include "shared/learn/models/model.hpp"
#include "shared/learn/train/train.hpp"
#include "shared/wire/safetensors.hpp"

namespace headstart::wire {
struct Join;
}

namespace headstart::plan {

/// Where the constants that samples are normalised by come from.
enum class StatisticsSource {
  given,      ///< The server's settings or data; the terms have them.
  federated,  ///< All silos' training samples, by sums, before anything is trained.
};
inline constexpr std::pair<StatisticsSource, std::string_view> statistics_words[] = {
    {StatisticsSource::given, "given"}, {StatisticsSource::federated, "federated"}};

/// What a silo's people want to know of a run before they join.
struct Plan {
  std::int64_t rounds = 0;
  std::string start = "random";  ///< What round 1 starts from.
  std::string share_model;       ///< What the run wants `share_model: peers` for; empty: for nothing.
};

struct Terms {
  std::int64_t seed = 1;
  learn::Precision precision = learn::Precision::float32;  ///< Of training, distillation and evaluation, everywhere.
  learn::ModelSpec model;
  // Not settings of their own: the server fills them in.
  std::string architecture;  ///< ModelSpec::architecture() of the server's model: with the SHA-256 of a script.
  learn::Task task;
  learn::SampleTerms samples;
  Plan plan;
  std::string metric = "accuracy";  ///< The run's validation.metric, its class as a number.
  /// federated: samples.mean and .deviation are not of the terms as they travel; each task brings them.
  StatisticsSource statistics = StatisticsSource::given;
  double held_out = 0.1;  ///< Fraction of a client's samples kept for its early stopping and federated evaluation.
  learn::PretrainOptions pretrain;
  learn::TrainOptions train;
  learn::DistillOptions consolidation;
  std::int64_t max_examples = 0;   ///< Training and held-out samples, each, that a client may announce; 0: no bound.
  std::int64_t max_own_model = 0;  ///< Bytes of a model that a client pre-trains in place of the federated one; 0:
                                   ///< as own_model_limit() says.
  std::vector<std::string>
      unknown_sections;  ///< Of terms that were read: what this program does not know, and need not.

  /// What decides which of two models is better. Throws Error(usage) as learn::metric_of() does.
  [[nodiscard]] learn::Metric validation_metric() const {
    return learn::metric_of(metric, learn::numbered_classes(task.num_classes));
  }
  /// Where the streams of the run start; each stream is named by its place in the tree.
  [[nodiscard]] Seed seeds() const { return Seed(static_cast<std::uint64_t>(seed)); }
  [[nodiscard]] Seed client_seeds(const std::string& client) const { return seeds().child("client").child(client); }
};

void declare_fields(Fields& fields, Terms& terms);

/// Bytes that a client's own model may have, where the federated model has `federated_bytes`: as the terms say, else
/// four times these, and at least 256 MiB.
std::uint64_t own_model_limit(const Terms& terms, std::uint64_t federated_bytes);
/// A sentence where the model of `spec` would be above the limit, which is known without building it. Throws
/// Error(usage | data) as learn::state_bytes() does.
std::optional<std::string> beyond_own_model_limit(const learn::ModelSpec& spec, const Terms& terms,
                                                  std::uint64_t federated_bytes);

/// The terms as they travel, with what the server fills in and the sections that a client must know, and without the
/// path of a script.
std::string to_json_text(const Terms& terms);
/// Throws Error(data), naming the number and its bound, where a client could not read these terms.
void require_readable(const Terms& terms);
/// SHA-256 of the terms as they travel.
std::string digest_of(const Terms& terms);
/// What a model file says of itself, for whoever uses it without this program: server/run_files.md has the keys.
wire::Metadata metadata_of(const Terms& terms, const std::string& architecture);
/// The same of the run's own model, of `round`.
wire::Metadata metadata_of(const Terms& terms, std::int64_t round);

/// Why a model file that says this of itself was not made for samples as `terms` mean them: another shape, other
/// constants or classes; nothing where it says the same, or nothing of it.
std::optional<std::string> metadata_misfit(const wire::Metadata& file, const Terms& terms);

/// Classes without names get their numbers for names. A section, which is all that stands under one key of the
/// outermost object, may be one of a later version: it is left aside. Throws Error(rejected), naming it, where the text
/// says that a client must know it, and Error(protocol), naming key and bounds, where the text is not such terms.
Terms terms_from_json_text(const std::string& text);
/// A sentence on what was left aside; nothing where all was known.
std::optional<std::string> remark_on_unknown(const Terms& terms);

/// A model's spec as it travels (without the path of a script).
std::string to_json_text(const learn::ModelSpec& spec);
learn::ModelSpec spec_from_json_text(const std::string& text);

/// Why a client that joins with these samples and this model cannot be in the run, which both sides say before round 1;
/// nothing where it can. Schema, own model and values of samples are compared apart. Throws Error(protocol) as
/// report_from_json_text() does.
std::optional<std::string> misfit(const wire::Join& join, const Terms& terms);

/// What a client says of its own samples when it joins.
struct SampleReport {
  learn::ClassList classes;
  learn::SampleFigures figures;
};
/// Of names that are too many to travel the first ones.
std::string to_json_text(const SampleReport& report);
/// Throws Error(protocol) where the text is not such a report.
SampleReport report_from_json_text(const std::string& text);
std::string to_json_text(const learn::Reference& reference);
/// Likewise.
learn::Reference reference_from_json_text(const std::string& text);

}  // namespace headstart::plan
