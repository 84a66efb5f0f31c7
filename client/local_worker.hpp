// The worker that trains for real, on the silo's own samples.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "client/pretrained_store.hpp"
#include "client/worker.hpp"
#include "shared/base/error.hpp"
#include "shared/learn/data/data_set.hpp"

namespace headstart::client {

struct LocalWorkerOptions {
  std::string name;
  std::string device = "cpu";
  std::optional<learn::ModelSpec> own_model;   ///< Pre-trained instead of the federated model.
  std::string script;                          ///< The silo's copy of a scripted federated model.
  std::optional<std::filesystem::path> store;  ///< Folder of pre-trained models.
  bool shares_with_peers = false;              ///< Its pre-trained model may go to other clients.
};

class LocalWorker final : public Worker {
 public:
  /// `data`: all of the silo's own samples, as stored; the run says what their values and labels mean. Throws
  /// Error(data) where there are none.
  LocalWorker(LocalWorkerOptions options, learn::Dataset data);
  ~LocalWorker() override;

  wire::Join join(const plan::Terms& terms) override;
  [[nodiscard]] std::vector<std::string> remarks() const override { return remarks_; }
  learn::Schema global_schema() override;
  learn::Schema schema_of(const learn::ModelSpec& spec) override;
  wire::PretrainDone pretrain(const TaskContext& context) override;
  wire::PackedState pretrained(const TaskContext& context) override;
  wire::PackedState train(const wire::PackedState& global, std::uint32_t round, const TaskContext& context) override;
  learn::Evaluation evaluate(const wire::PackedState& model, const std::optional<learn::ModelSpec>& candidate,
                             const TaskContext& context) override;
  wire::PackedState logits(const wire::PackedState& samples, const TaskContext& context) override;
  wire::PackedState distill(const Consolidation& task, const TaskContext& context) override;
  wire::PackedState reestimate_statistics(const wire::PackedState& model, const TaskContext& context) override;

  /// The samples it trains on, on its device: those held out are not among them. After join().
  [[nodiscard]] const learn::Samples& training_samples() const { return training_; }

 private:
  std::unique_ptr<learn::Model> make(const learn::ModelSpec& spec, Seed seed) const;
  void note_what_is_odd();
  [[nodiscard]] learn::ModelSpec with_local_script(learn::ModelSpec spec) const;
  /// Throws Error(`code`) where the model of `spec`, `owner`'s, would be above the run's limits.own_model.
  void require_within_limit(const learn::ModelSpec& spec, const std::string& owner, Errc code);
  learn::Model& global_model();
  [[nodiscard]] std::string pretraining_key() const;
  /// Puts the pre-trained model into the store; where that fails, the work goes on without.
  void keep(const std::string& key, const wire::PretrainDone& done) const;
  [[nodiscard]] const learn::ModelSpec& own_spec() const;
  [[nodiscard]] Seed seeds() const { return terms_.client_seeds(options_.name); }

  LocalWorkerOptions options_;
  learn::Dataset data_;
  learn::SampleFigures figures_;
  c10::Device device_;
  std::optional<PretrainedStore> store_;

  plan::Terms terms_;
  std::vector<std::string> remarks_;
  learn::Samples training_;
  learn::Samples held_out_;
  std::unique_ptr<learn::Model> global_model_;
  std::optional<wire::PackedState> pretrained_;
  /// Of the teachers of the last consolidation on the training samples, [teachers, samples, classes]: the same whatever
  /// the setting.
  struct TeacherLogits {
    std::string inputs;
    at::Tensor logits;
  };
  std::optional<TeacherLogits> teacher_logits_;
};

}  // namespace headstart::client
