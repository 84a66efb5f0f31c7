// Reading what a peer wrote, through declared fields. Private to plan/.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "shared/base/error.hpp"
#include "shared/base/fields.hpp"
#include "shared/base/files.hpp"
#include "shared/base/printable.hpp"

namespace headstart::plan {

/// Of an error that names the peer's own keys and values.
inline constexpr std::size_t max_error_bytes = 400;

/// Loads `text`, which messages call `name`, into what `declare(Fields&)` declares. `prepare` sees the text, as JSON,
/// and the fields before. Throws Error(protocol), or Error(rejected) where `prepare` does.
template <class Declare, class Prepare>
void load_from_peer(const std::string& text, std::string_view name, Declare declare, Prepare prepare) {
  try {
    nlohmann::json document = parse_json(text, name);
    Fields fields;
    declare(fields);
    prepare(document, fields);
    fields.load(document, name);
  } catch (const Error& error) {
    const Errc code = error.code() == Errc::rejected ? Errc::rejected : Errc::protocol;
    throw Error(code, printable(error.what(), max_error_bytes));
  }
}

/// The same, where none of `required` may be missing from the outermost object.
template <class Declare>
void load_from_peer(const std::string& text, std::string_view name, Declare declare,
                    std::initializer_list<std::string_view> required) {
  load_from_peer(text, name, declare, [&](const nlohmann::json& document, const Fields&) {
    for (const std::string_view key : required) {
      if (document.is_object() && document.contains(key)) continue;
      throw Error(Errc::protocol, std::string(name) + ": setting '" + std::string(key) + "' is missing");
    }
  });
}

template <class Declare>
void load_from_peer(const std::string& text, std::string_view name, Declare declare) {
  load_from_peer(text, name, declare, {});
}

}  // namespace headstart::plan
