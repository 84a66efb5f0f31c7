// Numbers as journal and records have them, read without losing any of them.
#pragma once

#include <nlohmann/json.hpp>

namespace headstart::server {

/// json::get() would cut fractions off and turn negative numbers into large ones. Throws Error(data). For
/// std::int64_t, std::uint32_t and std::uint64_t.
template <class Integer>
Integer whole_number(const nlohmann::json& value);

/// Of a model that diverged it is infinite, which JSON writes as null. Throws json::exception.
double loss_from(const nlohmann::json& value);

}  // namespace headstart::server
