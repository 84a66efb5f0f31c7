#include "client/pretrained_store.hpp"

#include <nlohmann/json.hpp>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"
#include "shared/base/log.hpp"
#include "shared/wire/safetensors.hpp"

namespace headstart::client {

namespace {

constexpr const char* parts[] = {"models", "index"};

}  // namespace

PretrainedStore::PretrainedStore(std::filesystem::path folder) : folder_(std::move(folder)) {
  make_private_folder(folder_);
  for (const char* part : parts) make_private_folder(folder_ / part);
}

void PretrainedStore::require_writable() const {
  for (const char* part : parts) AtomicFile(folder_ / part / "trial").write("x");  // never put in place
}

std::optional<PretrainedStore::Entry> PretrainedStore::find(const std::string& key) const {
  const std::filesystem::path index = folder_ / "index" / (key + ".json");
  try {
    if (!is_there(index, Errc::data)) return std::nullopt;
    const nlohmann::json record = read_json(index);
    const auto digest = record.at("model").get<std::string>();
    Entry entry;
    entry.model = wire::load_safetensors(folder_ / "models" / (digest + ".safetensors")).model;
    if (entry.model.digest() != digest)
      throw Error(Errc::data, digest + ".safetensors: content does not match its name");
    entry.done.is_reused = true;
    entry.done.seconds = record.at("seconds").get<double>();
    entry.done.num_epochs = record.at("epochs").get<std::uint32_t>();
    entry.done.best_epoch = record.at("best_epoch").get<std::uint32_t>();
    return entry;
  } catch (const std::exception& error) {
    spdlog::warn("stored pre-trained model {} is not usable and will be trained again: {}", key, error.what());
    return std::nullopt;
  }
}

void PretrainedStore::keep(const std::string& key, const Entry& entry,
                           const std::map<std::string, std::string>& metadata) const {
  const std::string digest = entry.model.digest();
  wire::save_safetensors(folder_ / "models" / (digest + ".safetensors"), entry.model, metadata);
  const nlohmann::json record = {{"model", digest},
                                 {"seconds", entry.done.seconds},
                                 {"epochs", entry.done.num_epochs},
                                 {"best_epoch", entry.done.best_epoch}};
  write_text_atomically(folder_ / "index" / (key + ".json"), record.dump(2) + "\n");
}

}  // namespace headstart::client
