#include "server/operations/page_access.hpp"

#include <algorithm>
#include <string_view>

#include "shared/base/digest.hpp"
#include "shared/base/error.hpp"
#include "shared/base/files.hpp"

namespace headstart::server {

namespace {

/// Of digests, which are of one length. Looks at every character, wherever the first difference is.
bool are_equal(std::string_view left, std::string_view right) {
  unsigned difference = left.size() == right.size() ? 0 : 1;
  for (std::size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
    difference |= static_cast<unsigned>(static_cast<unsigned char>(left[i]) ^ static_cast<unsigned char>(right[i]));
  }
  return difference == 0;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

/// The value of `name` in "name=value; other=value"; empty where it is not there.
std::string_view value_in(std::string_view list, char separator, std::string_view name) {
  while (!list.empty()) {
    const std::size_t end = std::min(list.find(separator), list.size());
    const std::string_view pair = trimmed(list.substr(0, end));
    const std::size_t equals = pair.find('=');
    if (equals != std::string_view::npos && pair.substr(0, equals) == name) return pair.substr(equals + 1);
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return {};
}

/// Whether a browser that asks for this host asks this machine: the name or address, with or without a port.
bool is_this_machine(std::string_view host) {
  if (host.starts_with("[::1]")) return host.size() == 5 || host[5] == ':';
  const std::string_view name = host.substr(0, host.find(':'));
  if (name == "localhost" || name.ends_with(".localhost")) return true;
  return name.starts_with("127.") &&
         std::ranges::all_of(name, [](char c) { return c == '.' || (c >= '0' && c <= '9'); });
}

bool stands_for_itself(char c) {
  const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  return is_letter || (c >= '0' && c <= '9') || std::string_view("-_.~").find(c) != std::string_view::npos;
}

}  // namespace

std::string read_page_token(const std::filesystem::path& file) {
  const std::string text = read_text(file);
  std::string_view token = text;
  while (!token.empty() && (token.back() == '\n' || token.back() == '\r')) token.remove_suffix(1);
  if (token.size() >= 16 && token.size() <= 128 && std::ranges::all_of(token, stands_for_itself)) {
    return std::string(token);
  }
  throw Error(Errc::usage, "page.token_file " + file.string() +
                               ": expected one line of 16 to 128 letters, digits, '-', '_', '.' or '~' (openssl rand "
                               "-hex 24 makes one)");
}

PageAccess::PageAccess(const std::string& token)
    : wants_token_(!token.empty()),
      token_digest_(sha256_hex(token)),
      cookie_name_("headstart_page_" + sha256_hex("name of the cookie of " + token).substr(0, 8)),
      cookie_(sha256_hex("cookie of " + token)),
      cookie_digest_(sha256_hex(cookie_)) {}

PageAccess::Verdict PageAccess::judge(const net::HttpRequest& request) const {
  if (!wants_token_) return is_this_machine(request.host) ? Verdict::granted : Verdict::foreign_host;
  constexpr std::string_view scheme = "Bearer ";
  if (request.authorization.starts_with(scheme)) {
    const std::string_view word = trimmed(request.authorization.substr(scheme.size()));
    return are_equal(sha256_hex(word), token_digest_) ? Verdict::granted : Verdict::wants_token;
  }
  if (are_equal(sha256_hex(value_in(request.query, '&', "token")), token_digest_)) return Verdict::granted_by_address;
  const std::string_view cookie = value_in(request.cookie, ';', cookie_name_);
  return are_equal(sha256_hex(cookie), cookie_digest_) ? Verdict::granted : Verdict::wants_token;
}

std::string PageAccess::set_cookie() const { return cookie_name_ + "=" + cookie_ + "; Path=/; HttpOnly; SameSite=Lax"; }

}  // namespace headstart::server
