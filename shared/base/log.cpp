#include "shared/base/log.hpp"

#include <memory>

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/base/printable.hpp"
#include "shared/base/time_text.hpp"

namespace headstart {

namespace {

class JsonFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    const auto text_of = [](spdlog::string_view_t view) { return std::string(view.data(), view.size()); };
    const nlohmann::json line = {{"time", utc_text(message.time)},
                                 {"level", text_of(spdlog::level::to_string_view(message.level))},
                                 {"program", text_of(message.logger_name)},
                                 {"message", text_of(message.payload)}};
    const std::string text = to_line(line) + "\n";
    out.append(text.data(), text.data() + text.size());
  }
  [[nodiscard]] std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<JsonFormatter>(); }
};

/// The last door before a terminal or a file: a line of the log is one line and holds what can be shown, whoever wrote
/// parts of it.
class PrintableFormatter final : public spdlog::formatter {
 public:
  explicit PrintableFormatter(std::unique_ptr<spdlog::formatter> inner) : inner_(std::move(inner)) {}
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    const std::string text = printable({message.payload.data(), message.payload.size()});
    spdlog::details::log_msg clean = message;
    clean.payload = text;
    inner_->format(clean, out);
    message.color_range_start = clean.color_range_start;
    message.color_range_end = clean.color_range_end;
  }
  [[nodiscard]] std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<PrintableFormatter>(inner_->clone());
  }

 private:
  std::unique_ptr<spdlog::formatter> inner_;
};

}  // namespace

void set_up_log(const std::string& program, const std::string& level, LogFormat format) {
  const spdlog::level::level_enum parsed = spdlog::level::from_str(level);
  if (parsed == spdlog::level::off && level != "off") {
    throw Error(Errc::usage, "log level: expected trace, debug, info, warn, error or off, got '" + level + "'");
  }
  auto logger = spdlog::stderr_color_mt(program);
  logger->set_level(parsed);
  // spdlog's own would complain on standard error, which is what cannot be written.
  logger->set_error_handler([](const std::string&) {});
  if (format == LogFormat::json) {
    logger->set_formatter(std::make_unique<PrintableFormatter>(std::make_unique<JsonFormatter>()));
  } else {
    // As the time in audit.jsonl and in JSON lines: sites in several time zones compare their logs.
    logger->set_formatter(std::make_unique<PrintableFormatter>(std::make_unique<spdlog::pattern_formatter>(
        "%Y-%m-%dT%H:%M:%S.%eZ %^%-5l%$ %v", spdlog::pattern_time_type::utc)));
  }
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace headstart
