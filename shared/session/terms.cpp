#include "shared/session/terms.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/learn/model_size.hpp"

namespace headstart::session {

namespace {

void declare_task(Fields& fields, learn::Task& task) {
  fields.integer("task.channels", task.channels, "Channels of a sample.", {1, 4096});
  fields.integer("task.height", task.height, "Height of a sample.", {1, 65536});
  fields.integer("task.width", task.width, "Width of a sample.", {1, 65536});
  fields.integer("task.classes", task.num_classes, "Number of classes.", {2, 2048});
}

template <class Declare>
void load_from_peer(const std::string& text, Declare declare) {
  try {
    const nlohmann::json document = parse_json(text, "terms of the run");
    Fields fields;
    declare(fields);
    fields.load(document, "terms of the run");
  } catch (const Error& error) {
    throw Error(Errc::protocol, error.what());
  }
}

}  // namespace

void declare_fields(Fields& fields, Terms& terms) {
  fields.integer("run.seed", terms.seed, "Seed of the run; every random stream derives from it.",
                 {0, 9007199254740992.0});
  declare_fields(fields, "model", terms.model);
  fields.number("data.held_out", terms.held_out,
                "Fraction of a client's samples that it keeps for early stopping and federated evaluation.", {0, 0.9});
  declare_fields(fields, "pretrain", terms.pretrain);
  declare_fields(fields, "train", terms.train);
  declare_fields(fields, "consolidation", terms.consolidation);
  fields.integer(
      "limits.own_model", terms.max_own_model,
      "Bytes of a model that a client may pre-train in place of the federated one (own_model at the client); "
      "checked before anybody builds it. 0: four times the federated model, at least 256 MiB.",
      {0, 1e13});
}

std::uint64_t own_model_limit(const Terms& terms, std::uint64_t federated_bytes) {
  constexpr std::uint64_t floor = std::uint64_t{256} << 20;
  if (terms.max_own_model > 0) return static_cast<std::uint64_t>(terms.max_own_model);
  return std::max(4 * federated_bytes, floor);
}

std::optional<std::string> beyond_own_model_limit(const learn::ModelSpec& spec, const Terms& terms,
                                                  std::uint64_t federated_bytes) {
  const std::uint64_t bytes = learn::state_bytes(spec, terms.task);
  const std::uint64_t limit = own_model_limit(terms, federated_bytes);
  if (bytes <= limit) return std::nullopt;
  return fmt::format("'{}' would have {} bytes; limits.own_model of the run allows {}", spec.architecture(), bytes,
                     limit);
}

std::string to_json_text(const Terms& terms) {
  Terms copy = terms;
  copy.model.forget_script_file();
  Fields fields;
  declare_fields(fields, copy);
  declare_task(fields, copy.task);
  return fields.resolved().dump();
}

Terms terms_from_json_text(const std::string& text) {
  Terms terms;
  load_from_peer(text, [&](Fields& fields) {
    declare_fields(fields, terms);
    declare_task(fields, terms.task);
  });
  return terms;
}

std::string to_json_text(const learn::ModelSpec& spec) {
  learn::ModelSpec copy = spec;
  copy.forget_script_file();
  Fields fields;
  learn::declare_fields(fields, "model", copy);
  return fields.resolved().dump();
}

learn::ModelSpec spec_from_json_text(const std::string& text) {
  learn::ModelSpec spec;
  load_from_peer(text, [&](Fields& fields) { learn::declare_fields(fields, "model", spec); });
  return spec;
}

}  // namespace headstart::session
