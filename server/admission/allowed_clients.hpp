// The list of the clients that may join a run (listen.allowed).
#pragma once

#include <filesystem>
#include <set>
#include <string>

namespace headstart::server {

/// The names in the file, one a line. Blanks around a name, empty lines, whatever follows a '#', a byte order mark at
/// the start and line ends of Windows do not count. Throws Error(data) naming file and line: it cannot be read, a line
/// is no client's name, or there is no name at all, so that nobody could join.
std::set<std::string> read_allowed_clients(const std::filesystem::path& file);

}  // namespace headstart::server
