// The floor of the distillation benchmarks: teachers computed anew for every batch.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "shared/learn/distill/distiller.hpp"

namespace headstart::bench {

double seconds_of(const std::function<void()>& work);

/// How far two students are apart, over how far the first went from `start`.
double distance_ratio(const learn::StateDict& start, const learn::StateDict& one, const learn::StateDict& two);

using Teachers = std::vector<std::unique_ptr<learn::Model>>;

Teachers make_teachers(std::int64_t count, const learn::ModelSpec& spec);
/// [teachers, samples, classes].
learn::Tensor logits_of_all(const Teachers& teachers, const learn::Tensor& x);

/// What learn::distill() does, without a cache of the teachers' logits.
void distil_recomputed(learn::Model& student, const Teachers& teachers, const learn::Samples& transfer,
                       const learn::DistillOptions& options, Seed seed);

}  // namespace headstart::bench
