#include <iostream>
#include <sstream>

#include <fmt/format.h>

#include "experiments/lab/commands.hpp"
#include "experiments/lab/study_store.hpp"
#include "shared/base/cli.hpp"
#include "shared/base/error.hpp"
#include "shared/base/files.hpp"

namespace headstart::lab {

namespace {

struct MergeCommand {
  std::string into;
  std::vector<std::string> shares;
};

int merge(const MergeCommand& command) {
  StudyStore target(command.into, StudyStore(command.shares.front()).settings());
  for (const std::string& file : command.shares) {
    const StudyStore share(file);
    target.merge(share);
    const CellCounts counts = share.counts();
    std::cout << fmt::format("{}: {} of {} cells done\n", file, counts.done, counts.total);
  }
  std::cout << fmt::format("done: {}, {} cells\n", command.into, target.counts().done);
  return 0;
}

struct TableCommand {
  std::string file;
  std::string out;
};

int write_table(const TableCommand& command) {
  const StudyStore store(command.file);
  if (command.out.empty()) {
    write_csv(store, std::cout);
    return 0;
  }
  if (is_there(command.out, Errc::storage)) {
    throw Error(Errc::storage, command.out + ": exists already and is never overwritten; choose another file");
  }
  std::ostringstream table;
  write_csv(store, table);
  write_text_atomically(command.out, table.str());
  std::cout << fmt::format("written: {}, {} cells\n", command.out, store.counts().done);
  return 0;
}

}  // namespace

Command add_merge(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("merge", "Joins the shares of a study that several machines computed");
  const auto command = std::make_shared<MergeCommand>();
  add_path(*sub, "--into", command->into, "Database that takes them up; made where it is missing")->required();
  add_path(*sub, "shares", command->shares, "Databases of the shares")->required();
  return {sub, [command] { return merge(*command); }};
}

Command add_table(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("table", "Writes a study's finished cells as CSV, a line a cell");
  const auto command = std::make_shared<TableCommand>();
  add_path(*sub, "--study", command->file, "Database of the study")->required();
  add_path(*sub, "--out", command->out, "File to write, never overwritten (default: standard output)");
  return {sub, [command] { return write_table(*command); }};
}

}  // namespace headstart::lab
