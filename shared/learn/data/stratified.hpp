// Draws that keep the classes' shares.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "shared/base/seed.hpp"
#include "shared/learn/core/tensor.hpp"

namespace headstart::learn {

/// `candidates` by their label, in their order. Throws Error(data) where a label is not in 0..num_classes-1.
std::vector<std::vector<std::int64_t>> by_class(const Tensor& labels, std::int64_t num_classes,
                                                const std::vector<std::int64_t>& candidates);

/// In the order of permutation(size, seed).
void shuffle(std::vector<std::int64_t>& indices, Seed seed);

/// `count` of `candidates` with every class in proportion to its share among them (largest remainders, ties to the
/// lower class), ascending. Throws Error(usage) where there are fewer candidates than `count`.
std::vector<std::int64_t> stratified_draw(const Tensor& labels, std::int64_t num_classes,
                                          const std::vector<std::int64_t>& candidates, std::int64_t count, Seed seed);

/// Splits a client's own samples into training and held-out parts: floor(fraction * n) held out, stratified by class
/// with largest remainders, at least one kept for training. Returns {training, held_out} indices, ascending, int64.
/// Throws Error(usage): no samples, or a fraction outside of 0..1.
std::pair<Tensor, Tensor> holdout_split(const Tensor& labels, double fraction, Seed seed);

}  // namespace headstart::learn
