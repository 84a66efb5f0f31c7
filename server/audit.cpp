#include "server/audit.hpp"

#include <utility>

#include "shared/base/time_text.hpp"

namespace headstart::server {

namespace {

void add_cargo(nlohmann::json& line, const Cargo& cargo) {
  line["what"] = cargo.what;
  line["bytes"] = cargo.num_bytes;
  line["sha256"] = cargo.digest;
}

}  // namespace

AuditLog::AuditLog(const std::filesystem::path& file, WallClock clock) : clock_(std::move(clock)), lines_(file) {}

void AuditLog::record(std::string_view event, nlohmann::json about) {
  about["at"] = utc_text(clock_());
  about["event"] = event;
  lines_.append(about);
}

void AuditLog::server_started(const std::string& version, bool is_resumed) {
  record("server started", {{"version", version}, {"resumed", is_resumed}});
}

void AuditLog::handshake_failed(const std::string& address, const std::string& reason) {
  record("handshake failed", {{"address", address}, {"reason", reason}});
}

void AuditLog::refused(const std::string& address, const std::string& certified_as, const std::string& name,
                       const std::string& reason) {
  record("refused", {{"address", address}, {"certificate", certified_as}, {"client", name}, {"reason", reason}});
}

void AuditLog::joined(const std::string& client, const std::string& address, const std::string& certified_as,
                      bool shares_with_peers) {
  record("joined", {{"client", client},
                    {"address", address},
                    {"certificate", certified_as},
                    {"share_model", shares_with_peers ? "peers" : "server"}});
}

void AuditLog::returned(const std::string& client, const std::string& address, const std::string& certified_as) {
  record("returned", {{"client", client}, {"address", address}, {"certificate", certified_as}});
}

void AuditLog::connection_lost(const std::string& client) { record("connection lost", {{"client", client}}); }

void AuditLog::sent(const std::string& client, const Cargo& cargo) {
  nlohmann::json line = {{"client", client}};
  add_cargo(line, cargo);
  record("sent", std::move(line));
}

void AuditLog::received(const std::string& client, const Cargo& cargo, const std::optional<std::string>& refusal,
                        std::optional<double> norm) {
  nlohmann::json line = {{"client", client}, {"accepted", !refusal.has_value()}};
  add_cargo(line, cargo);
  if (refusal) line["reason"] = *refusal;
  if (norm) line["norm"] = *norm;
  record("received", std::move(line));
}

void AuditLog::result_refused(const std::string& client, const std::string& kind, const std::string& reason) {
  record("result refused", {{"client", client}, {"kind", kind}, {"reason", reason}});
}

void AuditLog::global_model(std::int64_t round, const std::string& digest, const std::vector<std::string>& clients) {
  record("global model", {{"round", round}, {"sha256", digest}, {"clients", clients}});
}

void AuditLog::run_ended(const std::string& why) { record("run ended", {{"reason", why}}); }

}  // namespace headstart::server
