// How far the updates of a round are from the model they were trained from, and which stand out.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace headstart::server {

/// L2 norms by client.
using Norms = std::map<std::string, double>;

/// A norm stands out when it is larger than so many times the median of all.
inline constexpr double outlier_factor = 10;

/// Of an even number the lower middle one: half of the clients cannot raise it. 0 for none.
double median_of(const Norms& norms);

/// The client with the largest norm, where that is above outlier_factor times the median; none of fewer than two.
std::optional<std::string> outlier_in(const Norms& norms);

/// "the largest update in the model of round 4 is silo-3's, of L2 norm 1e+06; the median of 5 is 0.8". Empty without
/// norms.
std::string largest_update_words(std::int64_t round, const Norms& norms);

}  // namespace headstart::server
