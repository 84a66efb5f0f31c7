#include "server/operations/audit_log.hpp"

#include <utility>

namespace headstart::server {

namespace {

void add_transfer(nlohmann::json& line, const TransferRecord& cargo) {
  line["what"] = cargo.what;
  line["bytes"] = cargo.num_bytes;
  line["sha256"] = cargo.digest;
}

nlohmann::json visitor(const std::string& client, const std::string& address, const std::string& certified_as) {
  return {{"client", client}, {"address", address}, {"certificate", certified_as}};
}

}  // namespace

AuditLog::AuditLog(const std::filesystem::path& file, WallClock clock) : events_(file, std::move(clock)) {}

void AuditLog::server_started(const std::string& version, bool is_resumed) {
  events_.record("server started", {{"version", version}, {"resumed", is_resumed}});
}

void AuditLog::handshake_failed(const std::string& address, const std::string& reason) noexcept {
  events_.report("handshake failed", [&] { return nlohmann::json{{"address", address}, {"reason", reason}}; });
}

void AuditLog::refused(const std::string& address, const std::string& certified_as, const std::string& name,
                       const std::string& reason) noexcept {
  events_.report("refused", [&] {
    return nlohmann::json{{"address", address}, {"certificate", certified_as}, {"client", name}, {"reason", reason}};
  });
}

void AuditLog::joined(const std::string& client, const std::string& address, const std::string& certified_as,
                      const std::string& share_model, std::optional<std::size_t> count_so_far) {
  nlohmann::json line = visitor(client, address, certified_as);
  line["share_model"] = share_model;
  if (count_so_far) line["so_far"] = *count_so_far;
  events_.record("joined", std::move(line));
}

void AuditLog::samples_differ(const std::string& client, const std::string& how) {
  events_.record("samples differ", {{"client", client}, {"reason", how}});
}

void AuditLog::returned(const std::string& client, const std::string& address, const std::string& certified_as,
                        std::optional<std::size_t> count_so_far) {
  nlohmann::json line = visitor(client, address, certified_as);
  if (count_so_far) line["so_far"] = *count_so_far;
  events_.record("returned", std::move(line));
}

void AuditLog::checked(const std::string& client, const std::string& address, const std::string& certified_as) {
  events_.record("checked", visitor(client, address, certified_as));
}

void AuditLog::connection_lost(const std::string& client, const std::string& reason) noexcept {
  events_.report("connection lost", [&] { return nlohmann::json{{"client", client}, {"reason", reason}}; });
}

void AuditLog::sent(const std::string& client, const TransferRecord& cargo) {
  nlohmann::json line = {{"client", client}};
  add_transfer(line, cargo);
  events_.record("sent", std::move(line));
}

void AuditLog::received(const std::string& client, const TransferRecord& cargo,
                        const std::optional<std::string>& refusal, std::optional<double> norm) {
  nlohmann::json line = {{"client", client}, {"accepted", !refusal.has_value()}};
  add_transfer(line, cargo);
  if (refusal) line["reason"] = *refusal;
  if (norm) line["norm"] = *norm;
  events_.record("received", std::move(line));
}

void AuditLog::result_refused(const std::string& client, const std::string& kind, const std::string& reason) noexcept {
  events_.report("result refused", [&] {
    return nlohmann::json{{"client", client}, {"kind", kind}, {"reason", reason}};
  });
}

void AuditLog::global_model(std::int64_t round, const std::string& digest, const std::vector<std::string>& clients) {
  events_.record("global model", {{"round", round}, {"sha256", digest}, {"clients", clients}});
}

void AuditLog::taken_back(std::int64_t round, const std::string& kept_in) {
  events_.record("taken back", {{"round", round}, {"kept_in", kept_in}});
}

void AuditLog::run_ended(const std::string& why) noexcept {
  events_.report("run ended", [&] { return nlohmann::json{{"reason", why}}; });
}

}  // namespace headstart::server
