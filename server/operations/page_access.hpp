// Who may see the page.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "shared/net/http.hpp"

namespace headstart::server {

/// The token in `file`: its only line. Throws Error(usage) where it is not 16 to 128 letters, digits, '-', '_', '.' or
/// '~', which stand for themselves in an address; the message does not show it. Throws Error(data) where there is no
/// such file.
std::string read_page_token(const std::filesystem::path& file);

/// The rule of the page; probes and metrics have none.
class PageAccess {
 public:
  /// `token`: empty: none is asked for. Then only this machine's own names are answered (Host), so that no web site
  /// that a browser here shows reads the page under a name of its own.
  explicit PageAccess(const std::string& token);

  enum class Verdict : std::uint8_t {
    granted,
    granted_by_address,  ///< The token stood in the query: the browser is to get set_cookie() and an address without
                         ///< it.
    wants_token,
    foreign_host,
  };
  /// `Authorization: Bearer TOKEN`, the cookie, or `token=TOKEN` in the query. Takes equally long whatever a word of
  /// one length has in common with the token.
  [[nodiscard]] Verdict judge(const net::HttpRequest& request) const;
  /// The value of Set-Cookie. The cookie is made of the token and does not tell it.
  [[nodiscard]] std::string set_cookie() const;

 private:
  bool wants_token_;
  std::string token_digest_;  ///< SHA-256, hexadecimal, as the others are.
  std::string cookie_name_;   ///< One browser may watch servers with several tokens on one machine.
  std::string cookie_;
  std::string cookie_digest_;
};

}  // namespace headstart::server
