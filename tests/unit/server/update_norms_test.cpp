#include "server/uploads/update_norms.hpp"

#include <doctest/doctest.h>

namespace headstart::server {
namespace {

TEST_CASE("norms: the median is that of the lower half where there are two middle ones") {
  CHECK(median_of({}) == 0);
  CHECK(median_of({{"a", 3}}) == 3);
  CHECK(median_of({{"a", 1e9}, {"b", 2}}) == 2);
  CHECK(median_of({{"a", 5}, {"b", 1}, {"c", 3}}) == 3);
  CHECK(median_of({{"a", 5}, {"b", 1}, {"c", 1e9}, {"d", 3}}) == 3);
}

TEST_CASE("norms: who stands out is above ten times the median, and is never alone") {
  CHECK_FALSE(outlier_in({}));
  CHECK_FALSE(outlier_in({{"a", 1e9}}));
  CHECK_FALSE(outlier_in({{"a", 1}, {"b", 10}, {"c", 1}}));
  CHECK(outlier_in({{"a", 1}, {"b", 10.1}, {"c", 1}}) == "b");
}

TEST_CASE("norms: the largest update is named with its norm and the median of all") {
  CHECK(largest_update_words(4, {}).empty());
  CHECK(largest_update_words(4, {{"a", 0.75}, {"b", 1e6}, {"c", 0.5}}) ==
        "the largest update in the model of round 4 is b's, of L2 norm 1e+06; the median of 3 is 0.75");
}

}  // namespace
}  // namespace headstart::server
