#include "shared/learn/distill/dissimilarity.hpp"

#include <array>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "shared/base/error.hpp"

namespace headstart::learn {

std::span<const Dissimilarity* const> dissimilarities() {
  static constexpr std::array rows = {&cross_entropy_measure,  &kullback_leibler_measure,
                                      &jensen_shannon_measure, &structural_entropic_measure,
                                      &triangular_measure,     &multiway_entropic_measure};
  return rows;
}

std::vector<std::string> dissimilarity_words() {
  std::vector<std::string> words;
  for (const Dissimilarity* row : dissimilarities()) words.emplace_back(row->name);
  return words;
}

const Dissimilarity& dissimilarity_named(const std::string& name) {
  for (const Dissimilarity* row : dissimilarities()) {
    if (row->name == name) return *row;
  }
  throw Error(Errc::usage, fmt::format("dissimilarity measure '{}': expected one of {}", name,
                                       fmt::join(dissimilarity_words(), ", ")));
}

}  // namespace headstart::learn
