#include "server/operations/page_answers.hpp"

#include <algorithm>
#include <array>
#include <fstream>
#include <memory>
#include <string_view>

#include <fmt/format.h>

#include "server/operations/page_files.hpp"

namespace headstart::server {

namespace {

using net::HttpAnswer;
using net::HttpRequest;

constexpr std::array<std::string_view, 4> downloads = {"rounds.jsonl", "run.json", "summary.json", "final.safetensors"};
constexpr std::string_view download_folder = "/run/";

constexpr const char* policy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'";

/// A file as it was when it was opened, a piece at a time.
class FileStream final : public net::HttpStream {
 public:
  FileStream(std::ifstream file, std::uint64_t num_bytes) : file_(std::move(file)), left_(num_bytes) {}

  std::optional<std::string> next() override {
    std::string piece(static_cast<std::size_t>(std::min<std::uint64_t>(left_, 64 * 1024)), '\0');
    file_.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    if (piece.empty() || !file_) return std::nullopt;  // a file that has shrunk: the reader sees the length
    left_ -= piece.size();
    return piece;
  }

 private:
  std::ifstream file_;
  std::uint64_t left_;
};

HttpAnswer download(std::string_view name, const std::filesystem::path& folder) {
  std::ifstream file(folder / name, std::ios::binary | std::ios::ate);
  if (!file) return {.status = 404, .body = fmt::format("the run has no {} yet\n", name)};
  const auto num_bytes = static_cast<std::uint64_t>(file.tellg());
  file.seekg(0);
  const bool is_text = !name.ends_with(".safetensors");
  HttpAnswer answer{.content_type = is_text ? "application/json; charset=utf-8" : "application/octet-stream"};
  answer.headers = {{"Content-Disposition", fmt::format("attachment; filename=\"{}\"", name)},
                    {"X-Content-Type-Options", "nosniff"}};
  answer.stream = std::make_shared<FileStream>(std::move(file), num_bytes);
  answer.stream_bytes = num_bytes;
  return answer;
}

const PageFile* page_file_at(std::string_view path) {
  const std::string_view name = path == "/" ? "index.html" : path.substr(1);
  for (const PageFile& file : page_files()) {
    if (file.name == name) return &file;
  }
  return nullptr;
}

HttpAnswer refusal_of(PageAccess::Verdict verdict) {
  if (verdict == PageAccess::Verdict::foreign_host) {
    return {.status = 403, .body = "without page.token_file the page is for http://localhost and http://127.0.0.1\n"};
  }
  return {.status = 401,
          .body =
              "the page asks for its token (page.token_file): open /?token=TOKEN, or send the header "
              "Authorization: Bearer TOKEN\n",
          .headers = {{"WWW-Authenticate", "Bearer"}}};
}

}  // namespace

std::optional<HttpAnswer> answer_page(const HttpRequest& request, const PageDesk& desk) {
  const bool is_download = request.path.starts_with(download_folder) &&
                           std::ranges::count(downloads, request.path.substr(download_folder.size())) > 0;
  const bool is_events = request.path == "/events";
  const PageFile* file = request.path.starts_with('/') ? page_file_at(request.path) : nullptr;
  if (!is_download && !is_events && file == nullptr) return std::nullopt;
  if (desk.page == nullptr) {
    return HttpAnswer{.status = 403,
                      .body =
                          "there is no page: admin.address can be reached from other machines, and page.token_file "
                          "is not set\n"};
  }
  const PageAccess::Verdict verdict = desk.access.judge(request);
  if (verdict == PageAccess::Verdict::granted_by_address) {
    return HttpAnswer{.status = 303, .headers = {{"Location", "/"}, {"Set-Cookie", desk.access.set_cookie()}}};
  }
  if (verdict != PageAccess::Verdict::granted) return refusal_of(verdict);
  if (is_download) return download(request.path.substr(download_folder.size()), desk.folder);
  if (is_events) {
    HttpAnswer answer{.content_type = "text/event-stream"};
    answer.stream = desk.page->viewer(request.last_event_id);
    return answer;
  }
  HttpAnswer answer{.content_type = std::string(file->content_type), .body = std::string(file->text)};
  answer.headers = {{"Content-Security-Policy", policy},
                    {"X-Content-Type-Options", "nosniff"},
                    {"Referrer-Policy", "no-referrer"},
                    {"Cross-Origin-Resource-Policy", "same-origin"}};
  return answer;
}

}  // namespace headstart::server
