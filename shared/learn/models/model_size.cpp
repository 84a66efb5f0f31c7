#include "shared/learn/models/model_size.hpp"

#include <filesystem>
#include <system_error>

#include "shared/base/error.hpp"
#include "shared/learn/models/networks.hpp"
#include "shared/learn/models/stated_model.hpp"

namespace headstart::learn {

namespace {

std::uint64_t file_bytes(const std::string& file) {
  std::error_code code;
  const std::uintmax_t size = std::filesystem::file_size(file, code);
  if (code) throw Error(Errc::data, file + ": cannot be read (" + code.message() + ")");
  return size;
}

}  // namespace

std::uint64_t state_bytes(const ModelSpec& spec, const Task& task) {
  if (spec.is_scripted()) return file_bytes(spec.script_file());
  if (spec.is_stated()) return stated_of(spec).schema.num_bytes();
  // Doubles do not overflow, and hold every size that there is memory for exactly.
  const double bytes = network_row(spec.name).bytes(spec, task, resolved_norm(spec));
  constexpr double limit = 0x1p63;
  return static_cast<std::uint64_t>(bytes < limit ? bytes : limit);
}

}  // namespace headstart::learn
