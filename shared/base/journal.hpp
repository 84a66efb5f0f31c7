// What a program has achieved so far, one checked line an event: what it goes on from when it is started again.
#pragma once

#include <filesystem>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace headstart {

/// A line is 64 hexadecimal digits, a space, and a JSON object of which they are the SHA-256.
class Journal {
 public:
  /// Opens `file`, made where it is missing, and holds it against a second process. Throws Error(storage) where it
  /// cannot be written or another process holds it; Error(data) where a line is damaged though whole ones follow: no
  /// process that was killed leaves that, and to go on from there would lose what they say.
  explicit Journal(std::filesystem::path file);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  /// The events of an earlier process. A damaged end, as one that was killed while writing leaves it, is cut off.
  [[nodiscard]] const std::vector<nlohmann::json>& earlier() const { return earlier_; }
  /// One sentence where something was cut off, else empty.
  [[nodiscard]] const std::string& damage() const { return damage_; }

  /// On the disk when it returns. From any thread. Throws Error(storage); the journal is then as it was.
  void append(const nlohmann::json& event);

  /// The events of a journal's text, and how many of its bytes they take; the rest is damaged.
  static std::pair<std::vector<nlohmann::json>, std::size_t> parse(std::string_view text);

 private:
  std::filesystem::path file_;
  int descriptor_ = -1;
  std::mutex mutex_;
  std::vector<nlohmann::json> earlier_;
  std::string damage_;
};

}  // namespace headstart
