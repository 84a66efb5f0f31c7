// The address of a server as people write it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace headstart::net {

struct Url {
  std::string host;  ///< A name or an IP address; an IPv6 address without its brackets.
  std::uint16_t port = 0;
  std::string path = "/";
  bool is_secure = false;  ///< wss://
};

/// Reads "wss://HOST:PORT[/PATH]" or "ws://..."; an IPv6 host stands in brackets. Throws Error(usage) saying what was
/// expected.
Url parse_url(std::string_view text);

/// "HOST:PORT", an IPv6 host in brackets.
std::string host_and_port(const Url& url);

/// The whole address, as parse_url() reads it.
std::string to_string(const Url& url);

/// The address of a peer as channels name it, "192.0.2.7:50312" or "[2001:db8::1]:50312", without the port.
std::string address_of(const std::string& peer);

}  // namespace headstart::net
