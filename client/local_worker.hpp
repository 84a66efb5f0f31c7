// The worker that trains for real, on the silo's own samples.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "client/silo.hpp"
#include "client/tasks/task_handler.hpp"
#include "client/worker.hpp"

namespace headstart::client {

class LocalWorker final : public Worker {
 public:
  /// Throws as Silo's constructor. `rows`: what it can do.
  LocalWorker(SiloOptions options, learn::Dataset data, std::span<const TaskRow> rows = local_tasks());

  [[nodiscard]] std::vector<std::string> kinds() const override;
  wire::Join join(const plan::Terms& terms) override;
  [[nodiscard]] std::vector<std::string> remarks() const override { return silo_.remarks(); }
  learn::Schema global_schema() override { return silo_.global_model().schema(); }
  learn::Schema schema_of(const learn::ModelSpec& spec) override { return silo_.schema_of(spec); }
  [[nodiscard]] std::string describe(const Assignment& assignment) const override;
  TaskResult perform(const Assignment& assignment, const TaskContext& context) override;

  [[nodiscard]] const Silo& silo() const { return silo_; }

 private:
  /// Throws Error(protocol) where it cannot do this kind.
  [[nodiscard]] TaskHandler& handler_of(const Assignment& assignment) const;

  Silo silo_;
  std::span<const TaskRow> rows_;
  std::map<std::string_view, std::unique_ptr<TaskHandler>> handlers_;  ///< By kind, since the last join().
};

}  // namespace headstart::client
