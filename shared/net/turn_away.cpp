#include "shared/net/turn_away.hpp"

#include <array>
#include <string>

#include <boost/asio/buffer.hpp>

namespace headstart::net {

namespace {

/// A record of TLS: fatal alert 80, which is what the standard has for a side that lacks memory or the like.
constexpr std::array<unsigned char, 7> no_place_alert = {0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x50};

/// More than a peer says before it is answered. What is left unread would make the close a reset, which may overtake
/// the answer.
constexpr std::size_t most_unread = 16384;

}  // namespace

std::string plain_answer(std::string_view status, std::string_view line, std::string_view connection_header) {
  std::string answer = "HTTP/1.1 ";
  answer.append(status).append("\r\nServer: ").append(http_server_name);
  answer.append("\r\n").append(connection_header).append("\r\nContent-Type: text/plain\r\nContent-Length: ");
  answer.append(std::to_string(line.size() + 1)).append("\r\n\r\n").append(line).append("\n");
  return answer;
}

void turn_away(asio::ip::tcp::socket& socket, bool speaks_tls) noexcept {
  boost::system::error_code error;
  try {
    socket.non_blocking(true, error);
    if (!error && speaks_tls) {
      socket.write_some(asio::buffer(no_place_alert), error);
    } else if (!error) {
      const std::string answer = plain_answer("503 Service Unavailable", "the server takes no more connections");
      socket.write_some(asio::buffer(answer), error);
    }
    std::array<char, 4096> unread{};
    for (std::size_t total = 0; !error && total < most_unread;) total += socket.read_some(asio::buffer(unread), error);
    socket.shutdown(asio::ip::tcp::socket::shutdown_send, error);
  } catch (...) {  // NOLINT(bugprone-empty-catch): without memory it goes without a word
  }
  socket.close(error);
}

}  // namespace headstart::net
