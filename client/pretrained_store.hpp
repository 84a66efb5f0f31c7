// Pre-trained models on disk by content hash, so that runs over the same data, model and seed train once.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "shared/plan/tasks.hpp"
#include "shared/wire/packed_state.hpp"

namespace headstart::client {

/// FOLDER/models/<sha-256 of the tensors>.safetensors and FOLDER/index/<key>.json, which names the model and how long
/// its training took. Several processes may share a folder.
class PretrainedStore {
 public:
  /// Makes the folder where it is missing; only its owner may enter it then. Throws Error(storage).
  explicit PretrainedStore(std::filesystem::path folder);

  /// Throws Error(storage) where an entry could not be written.
  void require_writable() const;

  struct Entry {
    wire::PackedState model;
    plan::Pretraining done;
  };
  /// `key`: everything that determines the result, hashed. Empty where there is none; a damaged entry is reported
  /// as a warning in the log and counts as none.
  [[nodiscard]] std::optional<Entry> find(const std::string& key) const;
  /// `metadata`: of the model's file. Throws Error(storage), naming the file.
  void keep(const std::string& key, const Entry& entry, const std::map<std::string, std::string>& metadata) const;

 private:
  std::filesystem::path folder_;
};

}  // namespace headstart::client
