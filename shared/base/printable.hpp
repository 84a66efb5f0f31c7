// Words that others wrote (peers, files, libraries), as a terminal, a log or a record may hold them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace headstart {

/// No line is longer that this program shows or logs.
inline constexpr std::size_t max_line_bytes = 4096;

/// Words of a peer that stand in a sentence of this program.
inline constexpr std::size_t max_quoted_bytes = 200;

/// Whether `text` is valid UTF-8 that shows as it stands and on one line: without control characters (C0, DEL, C1, and
/// so without escape sequences), line separators, marks that turn the direction of writing, and invisible or
/// unassigned special characters. The joiners that some scripts need are allowed.
bool is_printable(std::string_view text);

/// `text`, printable: a blank in place of each white-space control character (line breaks, tabulators), '?' in place of
/// every other byte that does not fit. Where that is longer than `max_bytes` (at least 3), it is cut between two
/// characters and ends with "...". Never longer than `text`; what is printable and short enough stays as it is.
std::string printable(std::string_view text, std::size_t max_bytes = max_line_bytes);

/// The same between two marks, of which none is left inside: words of somebody else, whose end the reader sees.
/// `max_bytes` is without the marks.
std::string quotation(std::string_view words, std::size_t max_bytes = max_quoted_bytes, char mark = '"');

}  // namespace headstart
