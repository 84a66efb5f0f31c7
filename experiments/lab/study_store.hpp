// What a study consists of and what it has found: one SQLite database, shared by the processes of one machine.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace headstart::lab {

/// One piece of a study that is computed in one go and repeatable from its settings alone.
struct Cell {
  std::string key;          ///< Unique in the study, readable: "label-dirichlet/seed-1/3-to-7/vanilla/student".
  nlohmann::json settings;  ///< All that the result depends on.
};

struct CellResult {
  nlohmann::json metrics;  ///< An object of numbers, words and lists.
  double seconds = 0;
  std::string version;  ///< Of the software that computed it.
};

struct DoneCell {
  Cell cell;
  CellResult result;
};

struct CellCounts {
  std::int64_t total = 0, done = 0, claimed = 0;
};

/// Studies and cells are compared by their settings but for "data.path", which another machine or a moved folder
/// changes. Every change is on the disk when the call returns, so that a process may be killed at any time. One thread.
/// All throw Error(storage) naming the file where it cannot be written, Error(data) where it is damaged.
class StudyStore {
 public:
  /// Makes the database of the study that `settings` describe, or opens it to go on with it. Throws Error(usage), each
  /// difference named, where the file is of another study: one that has a result, or that another process works on, as
  /// any other gives way; Error(data) where it is no study, or of another version of this format.
  StudyStore(const std::filesystem::path& file, const nlohmann::json& settings);
  /// Opens one that is there, to read it.
  explicit StudyStore(const std::filesystem::path& file);
  ~StudyStore();
  StudyStore(const StudyStore&) = delete;
  StudyStore& operator=(const StudyStore&) = delete;

  [[nodiscard]] nlohmann::json settings() const;

  /// Adds the cells that are not there yet. Throws Error(usage) where one is there with other settings.
  void add(const std::vector<Cell>& cells);

  /// A cell that is not done and that no living process works on: from now on this one's, until it is finished, given
  /// back, or this process ends, however it ends. In the order of adding. None when there is none left.
  std::optional<Cell> claim();
  void give_back(const Cell& cell);
  /// Throws Error(internal) where the cell is not this process's.
  void finish(const Cell& cell, const CellResult& result);

  [[nodiscard]] CellCounts counts() const;
  /// In the order of adding.
  void for_each_done(const std::function<void(const DoneCell&)>& take) const;

  /// Takes up the results of `other`, a store of the same study. All or nothing: throws Error(data) naming a cell for
  /// which both have a result, and not the same; seconds and version may differ, and this one's stay.
  void merge(const StudyStore& other);

 private:
  struct Connection;
  std::unique_ptr<Connection> connection_;
};

/// A line a cell: key, settings and metrics as columns of their own (nested names joined by '.'), seconds, version.
/// Quoted by RFC 4180; the columns are the union over all cells, in name order.
void write_csv(const StudyStore& store, std::ostream& out);

}  // namespace headstart::lab
