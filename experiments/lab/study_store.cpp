#include "experiments/lab/study_store.hpp"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <ostream>
#include <set>
#include <utility>

#include <SQLiteCpp/SQLiteCpp.h>
#include <fmt/format.h>

#include "shared/base/error.hpp"
#include "shared/base/files.hpp"

namespace headstart::lab {

namespace {

using nlohmann::json;

/// Of the tables below, in the database's header: a change of them is a new number.
constexpr int format_version = 1;
constexpr int application_id = 0x48535444;  // "HSTD"
constexpr int patience_ms = 60'000;         // for another process's transaction

constexpr const char* tables = R"sql(
  CREATE TABLE study (settings TEXT NOT NULL) STRICT;
  CREATE TABLE cells (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    settings TEXT NOT NULL,
    worker INTEGER,
    metrics TEXT,
    seconds REAL,
    version TEXT
  ) STRICT;
  CREATE INDEX open_cells ON cells (id) WHERE metrics IS NULL;
)sql";

/// SQLite's words as an Error: what a disk or another process causes, or what is in the file.
[[noreturn]] void rethrow(const SQLite::Exception& failure, const std::string& file) {
  const int code = failure.getErrorCode();
  const bool is_content = code == SQLITE_CORRUPT || code == SQLITE_NOTADB || code == SQLITE_FORMAT;
  throw Error(
      is_content ? Errc::data : Errc::storage,
      fmt::format("{}: {} ({})", file, is_content ? "is no study, or is damaged" : "cannot be used", failure.what()));
}

void name_differences(const json& mine, const json& theirs, const std::string& key, std::vector<std::string>& out) {
  if (mine == theirs) return;
  if (!mine.is_object() || !theirs.is_object()) {
    out.push_back(fmt::format("{} was {}, is {}", key, theirs.dump(), mine.dump()));
    return;
  }
  std::set<std::string> names;
  for (const auto& [name, value] : mine.items()) names.insert(name);
  for (const auto& [name, value] : theirs.items()) names.insert(name);
  for (const std::string& name : names) {
    name_differences(mine.value(name, json()), theirs.value(name, json()), key.empty() ? name : key + "." + name, out);
  }
}

/// What two studies, or two cells, are compared by: where the data lie makes no difference.
json identity_of(json settings) {
  if (settings.contains("data") && settings.at("data").is_object()) settings.at("data").erase("path");
  return settings;
}

/// A process's place among those that work on a study: a lock on one byte of a file, which ends with the process.
class WorkerLock {
 public:
  explicit WorkerLock(const std::string& file) : file_(file) {
    descriptor_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor_ < 0) fail();
    while (!try_lock(number_)) ++number_;
  }
  ~WorkerLock() { ::close(descriptor_); }
  WorkerLock(const WorkerLock&) = delete;
  WorkerLock& operator=(const WorkerLock&) = delete;

  [[nodiscard]] std::int64_t number() const { return number_; }
  [[nodiscard]] bool is_alive(std::int64_t number) const {
    if (number == number_) return true;
    struct flock lock = byte(number);
    if (::fcntl(descriptor_, F_OFD_GETLK, &lock) != 0) fail();
    return lock.l_type != F_UNLCK;
  }
  [[nodiscard]] bool has_company() const {
    struct flock lock = byte(0);
    lock.l_len = 0;  // all of them
    if (::fcntl(descriptor_, F_OFD_GETLK, &lock) != 0) fail();
    return lock.l_type != F_UNLCK;
  }

 private:
  static struct flock byte(std::int64_t number) {
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = number;
    lock.l_len = 1;
    return lock;
  }
  bool try_lock(std::int64_t number) const {
    struct flock lock = byte(number);
    if (::fcntl(descriptor_, F_OFD_SETLK, &lock) == 0) return true;
    if (errno != EAGAIN && errno != EACCES) fail();
    return false;
  }
  [[noreturn]] void fail() const {
    throw Error(Errc::storage, fmt::format("{}: cannot be locked ({})", file_, std::strerror(errno)));
  }

  std::string file_;
  int descriptor_ = -1;
  std::int64_t number_ = 0;
};

Cell cell_of(SQLite::Statement& row) {
  return {row.getColumn(0).getString(), json::parse(row.getColumn(1).getString())};
}

}  // namespace

struct StudyStore::Connection {
  Connection(const std::filesystem::path& path, int flags) : file(path.string()), database(file, flags, patience_ms) {
    database.exec("PRAGMA synchronous = FULL");
  }

  /// Runs `work` and gives its errors the file's name.
  template <class Work>
  auto guarded(Work work) {
    try {
      return work();
    } catch (const SQLite::Exception& failure) {
      rethrow(failure, file);
    } catch (const json::exception& failure) {
      throw Error(Errc::data, fmt::format("{}: is damaged ({})", file, failure.what()));
    }
  }

  void check_format() {
    const int id = database.execAndGet("PRAGMA application_id").getInt();
    const int version = database.execAndGet("PRAGMA user_version").getInt();
    if (id != application_id) throw Error(Errc::data, file + ": is a database, but not of a study");
    if (version == format_version) return;
    throw Error(Errc::data, fmt::format("{}: is of version {} of the format, this program reads {}; use the headstart "
                                        "that wrote it",
                                        file, version, format_version));
  }

  /// Claims of workers that have ended are free again.
  void free_orphans() {
    std::vector<std::int64_t> orphans;
    SQLite::Statement workers(database,
                              "SELECT DISTINCT worker FROM cells WHERE metrics IS NULL AND worker IS NOT NULL");
    while (workers.executeStep()) {
      const std::int64_t number = workers.getColumn(0).getInt64();
      if (!lock->is_alive(number)) orphans.push_back(number);
    }
    for (const std::int64_t number : orphans) free_claims_of(number);
  }
  void free_claims_of(std::int64_t number) {
    SQLite::Statement free(database, "UPDATE cells SET worker = NULL WHERE worker = ? AND metrics IS NULL");
    free.bind(1, number);
    free.exec();
  }

  void describe(const json& settings) {
    SQLite::Statement insert(database, "INSERT INTO study (settings) VALUES (?)");
    insert.bind(1, settings.dump());
    insert.exec();
  }
  [[nodiscard]] json description() {
    return json::parse(database.execAndGet("SELECT settings FROM study").getString());
  }

  std::string file;
  SQLite::Database database;
  std::optional<WorkerLock> lock;
};

StudyStore::StudyStore(const std::filesystem::path& file, const json& settings) {
  try {
    connection_ = std::make_unique<Connection>(file, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
  } catch (const SQLite::Exception& failure) {
    rethrow(failure, file.string());
  }
  connection_->guarded([&] {
    SQLite::Database& database = connection_->database;
    SQLite::Transaction transaction(database, SQLite::TransactionBehavior::IMMEDIATE);
    const bool is_new = database.execAndGet("SELECT count(*) FROM sqlite_master").getInt() == 0;
    if (is_new) {
      database.exec(tables);
      database.exec(
          fmt::format("PRAGMA application_id = {}; PRAGMA user_version = {}", application_id, format_version));
      connection_->describe(settings);
    }
    connection_->check_format();
    transaction.commit();
  });
  // Before the settings are compared: who finds them the same is seen by whoever would replace them.
  connection_->lock.emplace(file.string() + ".lock");
  connection_->guarded([&] {
    SQLite::Database& database = connection_->database;
    SQLite::Transaction transaction(database, SQLite::TransactionBehavior::IMMEDIATE);
    std::vector<std::string> differences;
    name_differences(identity_of(settings), identity_of(connection_->description()), "", differences);
    if (!differences.empty()) {
      const bool has_results = database.execAndGet("SELECT count(metrics) FROM cells").getInt64() > 0;
      if (has_results || connection_->lock->has_company()) {
        throw Error(Errc::usage,
                    fmt::format("{} holds another study: {}. Give the settings that it was begun with to go on "
                                "with it, or choose another file",
                                file.string(), fmt::join(differences, "; ")));
      }
      database.exec("DELETE FROM cells; DELETE FROM study");
      connection_->describe(settings);
    }
    // Whoever had this number before has ended.
    connection_->free_claims_of(connection_->lock->number());
    transaction.commit();
  });
}

StudyStore::StudyStore(const std::filesystem::path& file) {
  if (!is_there(file, Errc::data)) throw Error(Errc::data, file.string() + ": is not there");
  try {
    connection_ = std::make_unique<Connection>(file, SQLite::OPEN_READONLY);
  } catch (const SQLite::Exception& failure) {
    rethrow(failure, file.string());
  }
  connection_->guarded([&] { connection_->check_format(); });
}

StudyStore::~StudyStore() = default;

json StudyStore::settings() const {
  return connection_->guarded([&] { return connection_->description(); });
}

void StudyStore::add(const std::vector<Cell>& cells) {
  connection_->guarded([&] {
    SQLite::Transaction transaction(connection_->database, SQLite::TransactionBehavior::IMMEDIATE);
    SQLite::Statement find(connection_->database, "SELECT settings FROM cells WHERE key = ?");
    SQLite::Statement insert(connection_->database, "INSERT INTO cells (key, settings) VALUES (?, ?)");
    for (const Cell& cell : cells) {
      find.bind(1, cell.key);
      const bool is_there = find.executeStep();
      if (is_there && identity_of(json::parse(find.getColumn(0).getString())) != identity_of(cell.settings)) {
        throw Error(Errc::usage, fmt::format("{}: cell {} is there with other settings", connection_->file, cell.key));
      }
      find.reset();
      if (is_there) continue;
      insert.bind(1, cell.key);
      insert.bind(2, cell.settings.dump());
      insert.exec();
      insert.reset();
    }
    transaction.commit();
  });
}

std::optional<Cell> StudyStore::claim() {
  return connection_->guarded([&]() -> std::optional<Cell> {
    SQLite::Transaction transaction(connection_->database, SQLite::TransactionBehavior::IMMEDIATE);
    connection_->free_orphans();
    SQLite::Statement next(connection_->database,
                           "UPDATE cells SET worker = ? WHERE id = (SELECT id FROM cells WHERE metrics IS NULL AND "
                           "worker IS NULL ORDER BY id LIMIT 1) RETURNING key, settings");
    next.bind(1, connection_->lock->number());
    if (!next.executeStep()) return std::nullopt;
    Cell cell = cell_of(next);
    // A statement that returns rows is only done when it has said that there are no more.
    (void)next.executeStep();
    transaction.commit();
    return cell;
  });
}

void StudyStore::give_back(const Cell& cell) {
  connection_->guarded([&] {
    SQLite::Statement free(connection_->database,
                           "UPDATE cells SET worker = NULL WHERE key = ? AND worker = ? AND metrics IS NULL");
    free.bind(1, cell.key);
    free.bind(2, connection_->lock->number());
    free.exec();
  });
}

void StudyStore::finish(const Cell& cell, const CellResult& result) {
  const int num_changed = connection_->guarded([&] {
    SQLite::Statement done(connection_->database,
                           "UPDATE cells SET metrics = ?, seconds = ?, version = ? WHERE key = ? AND worker = ? AND "
                           "metrics IS NULL");
    done.bind(1, result.metrics.dump());
    done.bind(2, result.seconds);
    done.bind(3, result.version);
    done.bind(4, cell.key);
    done.bind(5, connection_->lock->number());
    return done.exec();
  });
  if (num_changed != 1) throw Error(Errc::internal, fmt::format("cell {} is not this process's", cell.key));
}

CellCounts StudyStore::counts() const {
  return connection_->guarded([&] {
    SQLite::Statement count(connection_->database,
                            "SELECT count(*), count(metrics), count(worker) FILTER (WHERE metrics IS NULL) FROM cells");
    (void)count.executeStep();
    return CellCounts{count.getColumn(0).getInt64(), count.getColumn(1).getInt64(), count.getColumn(2).getInt64()};
  });
}

void StudyStore::for_each_done(const std::function<void(const DoneCell&)>& take) const {
  connection_->guarded([&] {
    SQLite::Statement rows(connection_->database,
                           "SELECT key, settings, metrics, seconds, version FROM cells WHERE metrics IS NOT NULL "
                           "ORDER BY id");
    while (rows.executeStep()) {
      take(
          {cell_of(rows),
           {json::parse(rows.getColumn(2).getString()), rows.getColumn(3).getDouble(), rows.getColumn(4).getString()}});
    }
  });
}

void StudyStore::merge(const StudyStore& other) {
  std::vector<std::string> differences;
  name_differences(identity_of(settings()), identity_of(other.settings()), "", differences);
  if (!differences.empty()) {
    throw Error(Errc::usage, fmt::format("{} is of another study than {}: {}", other.connection_->file,
                                         connection_->file, fmt::join(differences, "; ")));
  }
  connection_->guarded([&] {
    SQLite::Database& database = connection_->database;
    SQLite::Transaction transaction(database, SQLite::TransactionBehavior::IMMEDIATE);
    SQLite::Statement find(database, "SELECT settings, metrics FROM cells WHERE key = ?");
    SQLite::Statement insert(database, "INSERT OR IGNORE INTO cells (key, settings) VALUES (?, ?)");
    SQLite::Statement done(database,
                           "UPDATE cells SET metrics = ?, seconds = ?, version = ?, worker = NULL WHERE key = ?");
    other.for_each_done([&](const DoneCell& theirs) {
      const auto conflict = [&](const std::string& what) {
        return Error(Errc::data, fmt::format("cell {} has {} in {} and in {}; nothing was merged", theirs.cell.key,
                                             what, connection_->file, other.connection_->file));
      };
      find.bind(1, theirs.cell.key);
      if (find.executeStep()) {
        if (identity_of(json::parse(find.getColumn(0).getString())) != identity_of(theirs.cell.settings)) {
          throw conflict("other settings");
        }
        const bool is_done = !find.getColumn(1).isNull();
        if (is_done && json::parse(find.getColumn(1).getString()) != theirs.result.metrics) {
          throw conflict("another result");
        }
        find.reset();
        if (is_done) return;
      } else {
        find.reset();
        insert.bind(1, theirs.cell.key);
        insert.bind(2, theirs.cell.settings.dump());
        insert.exec();
        insert.reset();
      }
      done.bind(1, theirs.result.metrics.dump());
      done.bind(2, theirs.result.seconds);
      done.bind(3, theirs.result.version);
      done.bind(4, theirs.cell.key);
      done.exec();
      done.reset();
    });
    transaction.commit();
  });
}

namespace {

void flatten(const json& value, const std::string& name, std::map<std::string, std::string>& out) {
  if (value.is_object()) {
    for (const auto& [key, inner] : value.items()) flatten(inner, name + "." + key, out);
  } else {
    out[name] = value.is_string() ? value.get<std::string>() : value.dump();
  }
}

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string result = "\"";
  for (const char c : text) result += c == '"' ? std::string("\"\"") : std::string(1, c);
  return result + "\"";
}

std::map<std::string, std::string> columns_of(const DoneCell& done) {
  std::map<std::string, std::string> columns = {
      {"key", done.cell.key}, {"seconds", fmt::format("{}", done.result.seconds)}, {"version", done.result.version}};
  flatten(done.cell.settings, "settings", columns);
  flatten(done.result.metrics, "metrics", columns);
  return columns;
}

}  // namespace

void write_csv(const StudyStore& store, std::ostream& out) {
  std::set<std::string> names;
  store.for_each_done([&names](const DoneCell& done) {
    for (const auto& [name, value] : columns_of(done)) names.insert(name);
  });
  out << fmt::format("{}\r\n", fmt::join(names, ","));
  store.for_each_done([&](const DoneCell& done) {
    const auto columns = columns_of(done);
    std::vector<std::string> line;
    for (const std::string& name : names) {
      const auto found = columns.find(name);
      line.push_back(found == columns.end() ? "" : quoted(found->second));
    }
    out << fmt::format("{}\r\n", fmt::join(line, ","));
  });
}

}  // namespace headstart::lab
