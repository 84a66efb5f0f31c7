#include "client/local_worker.hpp"

#include "shared/base/printable.hpp"

namespace headstart::client {

LocalWorker::LocalWorker(SiloOptions options, learn::Dataset data, std::span<const TaskRow> rows)
    : silo_(std::move(options), std::move(data)), rows_(rows) {}

std::vector<std::string> LocalWorker::kinds() const {
  std::vector<std::string> kinds;
  for (const TaskRow& row : rows_) kinds.emplace_back(row.kind);
  return kinds;
}

wire::Join LocalWorker::join(const plan::Terms& terms) {
  handlers_.clear();
  wire::Join join = silo_.join(terms);
  for (const TaskRow& row : rows_) handlers_.emplace(row.kind, row.make());
  return join;
}

std::string LocalWorker::describe(const Assignment& assignment) const {
  return handler_of(assignment).describe(assignment);
}

TaskResult LocalWorker::perform(const Assignment& assignment, const TaskContext& context) {
  if (assignment.kind == plan::task::describe || silo_.terms().statistics == plan::StatisticsSource::given) {
    return handler_of(assignment).perform(silo_, assignment, context);
  }
  silo_.normalise(assignment.input(plan::input::normalisation));
  // No handler has to know of it.
  Assignment rest = assignment;
  std::erase_if(rest.inputs, [](const Input& input) { return input.name == plan::input::normalisation; });
  return handler_of(rest).perform(silo_, rest, context);
}

TaskHandler& LocalWorker::handler_of(const Assignment& assignment) const {
  const auto found = handlers_.find(assignment.kind);
  if (found != handlers_.end()) return *found->second;
  throw Error(Errc::protocol, "the server asks for the task " + quotation(assignment.kind) +
                                  ", which this client does not know and did not announce");
}

}  // namespace headstart::client
