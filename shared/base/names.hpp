// Names that people type, and help for those who mistype them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace headstart {

/// 1 to 64 characters of letters, digits, '.', '_' and '-', the first a letter or digit:
/// safe in file names, logs and certificate subjects.
bool is_valid_client_name(std::string_view name);

/// The candidate with the smallest edit distance to `word`; empty where none comes near
/// (distance above half of the word's length). Ties go to the first.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace headstart
