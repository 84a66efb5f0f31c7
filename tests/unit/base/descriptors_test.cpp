#include "shared/base/descriptors.hpp"

#include <algorithm>

#include <doctest/doctest.h>
#include <sys/resource.h>

namespace headstart {
namespace {

TEST_CASE("descriptors: the soft limit rises as far as asked for and the hard one goes, and never falls") {
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const rlimit low{std::min<rlim_t>(100, before.rlim_max), before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &low) == 0);
  CHECK(provide_descriptors(50) == low.rlim_cur);
  const std::size_t more = low.rlim_cur + 1;
  if (more <= before.rlim_max) CHECK(provide_descriptors(more) == more);
  CHECK(provide_descriptors(before.rlim_max) == before.rlim_max);
  if (before.rlim_max < RLIM_INFINITY) CHECK(provide_descriptors(before.rlim_max + 1) == before.rlim_max);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
}

}  // namespace
}  // namespace headstart
