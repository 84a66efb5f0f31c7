// The page's part of the admin port.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "server/operations/page_access.hpp"
#include "server/operations/run_page.hpp"
#include "shared/net/http.hpp"

namespace headstart::server {

/// What answers for the page of one run.
struct PageDesk {
  RunPage* page = nullptr;  ///< Null: there is none, as the port can be reached from elsewhere and there is no token.
  PageAccess access{""};
  std::filesystem::path folder;  ///< Of the run.
};

/// The page (/ and its files), its events (/events), and files of the run's folder for download: /run/rounds.jsonl,
/// /run/run.json, /run/summary.json, /run/final.safetensors and no others. Nothing where the path is none of these.
std::optional<net::HttpAnswer> answer_page(const net::HttpRequest& request, const PageDesk& desk);

}  // namespace headstart::server
