#include "shared/base/descriptors.hpp"

#include <algorithm>

#include <sys/resource.h>

namespace headstart {

std::size_t provide_descriptors(std::size_t needed) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return needed;  // unknown: taken for enough
  if (limit.rlim_cur < needed) {
    rlimit wanted = limit;
    wanted.rlim_cur = std::min<rlim_t>(needed, limit.rlim_max);
    if (::setrlimit(RLIMIT_NOFILE, &wanted) == 0) limit = wanted;
  }
  return limit.rlim_cur;
}

}  // namespace headstart
