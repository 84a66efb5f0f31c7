// Sums over silos of what their training samples' features come to, and heads that are judged by the validation source.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "server/phases/run_context.hpp"
#include "server/sessions/client_tasks.hpp"
#include "shared/learn/train/head_sums.hpp"

namespace headstart::server {

/// Whose features are summed, and how they are mapped.
struct SummedFeatures {
  /// The models as they are released to the silo of that name, in the order of their features.
  std::function<std::vector<ReleasedState>(const std::string& recipient)> models;
  learn::FeatureMap map;
  std::int64_t size = 0;  ///< Of u: FeatureMap::size_of().
  /// u of the server's validation samples, where that is the validation source: float64 [n, size].
  learn::Tensor validation_inputs;
};

/// The sum over silos.
struct FeatureTotal {
  learn::Tensor sum;  ///< int64 fixed point; undefined: nobody answered.
  std::int64_t num_samples = 0;
  std::int64_t num_silos = 0;
  /// Of the head, by each silo's held-out samples, where that was asked for.
  std::map<std::string, learn::Evaluation> held_out;
};

/// A head, and the counts of each who rated it: the server (an empty name), or silos. Nobody without a source.
struct JudgedHead {
  learn::Tensor head;
  std::map<std::string, learn::Evaluation> counts;
};

/// The place of the head of the lowest loss, or where `metric` is not accuracy of the highest score, then of the lowest
/// loss; the first of equals. With its counts, by those who rated all the heads: a silo that is lost half-way makes no
/// later head better. Left out is also who measures an infinite loss of a head of which others measure a finite one.
/// Nothing where nobody is left.
struct HeadChoice {
  std::size_t place = 0;
  learn::Evaluation rating;
  std::vector<double> losses;  ///< Of each head.
};
std::optional<HeadChoice> choose_head(const std::vector<JudgedHead>& heads, const learn::Metric& metric = {});

/// Silos that send no sums to this run any more, as they failed once, by name.
using WithoutSums = std::set<std::string>;

/// Asks silos: for the second moments all that are not in `without`, then those that sent these. Borrows the context.
/// Coroutines throw Error(interrupted) where the run is stopped.
class FeatureSums {
 public:
  /// `kind`: the phase that a failure is recorded for.
  FeatureSums(const RunContext& context, SummedFeatures features, PhaseKind kind, WithoutSums& without);

  /// learn::moments_of, [size (size + 1) / 2].
  net::Task<FeatureTotal> moments();
  /// learn::head_gradient at `head`, [size, C]; with federated validation also the counts of that head.
  net::Task<FeatureTotal> gradient(learn::Tensor head);
  /// The second moments, and the gradient at a head of zeros: of the same silos, however many are lost meanwhile.
  struct ClosedForm {
    FeatureTotal moments, class_sums;
  };
  net::Task<ClosedForm> closed_form();
  /// Each head with its counts. Asks the silos where validation is federated.
  net::Task<std::vector<JudgedHead>> judge(std::vector<learn::Tensor> heads);
  /// The same of a head whose gradient is there already.
  net::Task<JudgedHead> judged(learn::Tensor head, const FeatureTotal& gradient) const;
  [[nodiscard]] bool has_quorum(const FeatureTotal& total) const;

 private:
  net::Task<FeatureTotal> total_of(learn::Tensor head, std::vector<std::int64_t> shape);
  net::Task<> add(ClientSession& client, const DigestedState& head, const std::vector<std::int64_t>& shape,
                  FeatureTotal& total);

  const RunContext& context_;
  SummedFeatures features_;
  PhaseKind kind_;
  std::optional<DigestedState> projection_, lift_;
  WithoutSums& without_;
  /// Who sent second moments, and of how many samples; before that, nothing.
  std::optional<std::map<std::string, std::int64_t>> asked_;
};

}  // namespace headstart::server
