// How many files and sockets this process may have open.
#pragma once

#include <cstddef>

namespace headstart {

/// Raises the process's soft limit to `needed` descriptors, or as far as its hard limit goes; never lowers it. Returns
/// how many may be open.
std::size_t provide_descriptors(std::size_t needed);

/// Opens /dev/null in place of a standard input, output or error that the process was started without (`>&-`): the next
/// file or socket would have its number, and would be sent what is meant for the terminal.
void provide_standard_streams();

}  // namespace headstart
