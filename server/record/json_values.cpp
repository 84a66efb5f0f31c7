#include "server/record/json_values.hpp"

#include <cstdint>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"

namespace headstart::server {

using nlohmann::json;

template <class Integer>
Integer whole_number(const json& value) {
  const bool is_whole = value.is_number_unsigned()  ? std::in_range<Integer>(value.get<std::uint64_t>())
                        : value.is_number_integer() ? std::in_range<Integer>(value.get<std::int64_t>())
                                                    : false;
  if (!is_whole) throw Error(Errc::data, fmt::format("expected a whole number, got {}", to_line(value)));
  return value.get<Integer>();
}
template std::int64_t whole_number<std::int64_t>(const json& value);
template std::uint32_t whole_number<std::uint32_t>(const json& value);
template std::uint64_t whole_number<std::uint64_t>(const json& value);

double loss_from(const json& value) {
  return value.is_null() ? std::numeric_limits<double>::infinity() : value.get<double>();
}

}  // namespace headstart::server
