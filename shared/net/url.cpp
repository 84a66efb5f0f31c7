#include "shared/net/url.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

#include "shared/base/error.hpp"

namespace headstart::net {
namespace {

[[noreturn]] void refuse(std::string_view text, const std::string& why) {
  throw Error(Errc::usage,
              "server address '" + std::string(text) + "': " + why +
                  "; expected wss://HOST:PORT (TLS) or ws://HOST:PORT, for example wss://fl.example.org:9840");
}

std::optional<std::uint16_t> parse_port(std::string_view digits) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc() || end != digits.data() + digits.size() || port == 0) return std::nullopt;
  return port;
}

// What may stand in a request line and a Host header without changing their meaning.
bool is_plain(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < '\x7f'; });
}

struct Authority {
  std::string_view host;
  std::optional<std::string_view> port;
};

Authority split(std::string_view text, std::string_view authority) {
  if (authority.starts_with('[')) {
    const auto bracket = authority.find(']');
    if (bracket == std::string_view::npos) refuse(text, "the bracket of the IPv6 address is not closed");
    const auto rest = authority.substr(bracket + 1);
    if (!rest.starts_with(':')) return {authority.substr(1, bracket - 1), std::nullopt};
    return {authority.substr(1, bracket - 1), rest.substr(1)};
  }
  const auto colon = authority.find(':');
  if (colon == std::string_view::npos) return {authority, std::nullopt};
  if (authority.find(':', colon + 1) != std::string_view::npos) {
    refuse(text, "more than one ':' (an IPv6 address stands in brackets, ws://[::1]:7700)");
  }
  return {authority.substr(0, colon), authority.substr(colon + 1)};
}

}  // namespace

Url parse_url(std::string_view text) {
  const bool is_secure = text.starts_with("wss://");
  if (!is_secure && !text.starts_with("ws://")) refuse(text, "it starts with neither wss:// nor ws://");
  if (!is_plain(text)) refuse(text, "it contains a space, a control character or a letter beyond ASCII");
  const auto rest = text.substr(text.find("//") + 2);
  const auto slash = std::min(rest.find('/'), rest.size());
  const auto [host, port] = split(text, rest.substr(0, slash));
  if (host.empty()) refuse(text, "the host is missing");
  if (host.find_first_of("@?#[]\\") != std::string_view::npos) {
    refuse(text, "'" + std::string(host) + "' is no host name");
  }
  if (!port) refuse(text, "the port is missing");
  const auto number = parse_port(*port);
  if (!number) refuse(text, "'" + std::string(*port) + "' is no port (1 to 65535)");
  const auto path = rest.substr(slash);
  if (path.find('#') != std::string_view::npos) refuse(text, "a fragment (#...) has no meaning here");
  return {std::string(host), *number, path.empty() ? "/" : std::string(path), is_secure};
}

std::string host_and_port(const Url& url) {
  const bool is_ipv6 = url.host.find(':') != std::string::npos;
  return (is_ipv6 ? "[" + url.host + "]" : url.host) + ":" + std::to_string(url.port);
}

std::string to_string(const Url& url) { return (url.is_secure ? "wss://" : "ws://") + host_and_port(url) + url.path; }

std::string address_of(const std::string& peer) { return peer.substr(0, peer.rfind(':')); }

}  // namespace headstart::net
