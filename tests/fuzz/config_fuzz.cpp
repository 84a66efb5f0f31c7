// The settings of server and client: a JSON document where the input begins with '{', else one key=value a line.
// Promised: what is accepted reads the same after it was resolved and written.
#include "client/config.hpp"
#include "server/config/server_config.hpp"
#include "shared/base/files.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace headstart;

/// Declared once, as making some hundred fields takes longer than reading most inputs.
template <class Config>
struct Declared {
  Config config;
  Fields fields;
  Declared() { declare_fields(fields, config); }
};

void read(Fields& fields, std::string_view text) {
  if (text.starts_with('{')) return fields.load(parse_json(text, "input"), "input");
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    fields.set(line);
    text.remove_prefix(std::min(line.size() + 1, text.size()));
  }
}

template <class Config, class Check>
void read_as(std::string_view text, Check check) {
  static Declared<Config> declared;
  static const Config fresh;
  declared.config = fresh;
  if (fuzz::is_refused([&] { read(declared.fields, text); })) return;
  fuzz::is_refused([&] { check(declared.config); });
  // As run.json has it.
  const std::string written = to_line(declared.fields.resolved());
  declared.config = fresh;
  declared.fields.load(parse_json(written, "run.json"), "run.json");
  fuzz::require(to_line(declared.fields.resolved()) == written, "settings read as written");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = fuzz::text_of(data, size);
  read_as<server::ServerConfig>(text, [](const server::ServerConfig& config) { check(config); });
  read_as<client::ClientConfig>(text, [](const client::ClientConfig& config) { (void)worker_options(config); });
  return 0;
}
