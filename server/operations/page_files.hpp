// The page's own files, as they stand in server/operations/page and third_party/uplot: part of the program.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace headstart::server {

struct PageFile {
  std::string_view name;  ///< "index.html", "page.css", "page.js", "uplot.css", "uplot.js".
  std::string_view content_type;
  std::string_view text;
};

/// All of them; made of the files by cmake/embed.cmake.
std::span<const PageFile> page_files();

/// One HTML file that draws `run` (recorded_run()) by itself, without a server or a network: data, style and script
/// stand in it, and its Content-Security-Policy names their digests and allows nothing else.
std::string page_document(const nlohmann::json& run);

}  // namespace headstart::server
