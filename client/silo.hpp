// What the tasks of a client work with: the samples of its silo, and models under the terms of a run.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/assignment.hpp"
#include "client/client_memory.hpp"
#include "client/pretrained_store.hpp"
#include "shared/base/error.hpp"
#include "shared/learn/data/data_set.hpp"
#include "shared/learn/data/sample_figures.hpp"
#include "shared/learn/models/model.hpp"
#include "shared/plan/terms.hpp"
#include "shared/wire/messages.hpp"

namespace headstart::client {

struct SiloOptions {
  std::string name;
  std::string device = "cpu";
  std::optional<learn::ModelSpec> own_model;   ///< Pre-trained instead of the federated model.
  std::string script;                          ///< The silo's copy of a scripted federated model.
  std::optional<std::filesystem::path> store;  ///< Folder of pre-trained models.
  bool shares_with_peers = false;              ///< Its pre-trained model may go to other clients.
  bool withholds_model = false;                ///< Its pre-trained model leaves the silo in no way.
  std::int64_t min_sum_samples = 1;            ///< Of a class, for its samples to be in a sum that leaves the silo.
  bool shows_metrics = false;                  ///< The server may record this silo's own figures of a round's model.
  std::int64_t min_described_samples = 1;      ///< Values of a feature, for its mean and deviation to leave the silo.
  bool shows_range = false;                    ///< The least and greatest value of each feature may leave with them.
};

class Silo {
 public:
  /// `data`: all of the silo's own samples, as stored; the run says what their values and labels mean. Throws
  /// Error(data) where there are none.
  Silo(SiloOptions options, learn::Dataset data);
  ~Silo();
  Silo(const Silo&) = delete;
  Silo& operator=(const Silo&) = delete;

  /// See Worker. What follows is of these terms.
  wire::Join join(const plan::Terms& terms);
  [[nodiscard]] const std::vector<std::string>& remarks() const { return remarks_; }

  [[nodiscard]] const plan::Terms& terms() const { return terms_; }
  /// Where this client's streams start.
  [[nodiscard]] Seed seeds() const { return terms_.client_seeds(options_.name); }
  [[nodiscard]] c10::Device device() const { return device_; }
  /// Where the run's statistics are federated: takes up what samples are normalised by. Throws Error(protocol) where
  /// the run says it otherwise, or it is no mean and deviation of each channel.
  void normalise(const Input& input);
  /// What it says of its training samples before they are normalised.
  struct Description {
    plan::DescribeFigures figures;
    at::Tensor statistics;  ///< learn::packed.
  };
  [[nodiscard]] Description describe() const;
  /// On the device: those that it trains on, and those that it holds out.
  [[nodiscard]] const learn::Samples& training() const { return training_; }
  [[nodiscard]] const learn::Samples& held_out() const { return held_out_; }

  /// The federated model, on the device; each task loads what it works on.
  learn::Model& global_model();
  /// A model on the device, untrained. Throws as learn::make_model() does.
  [[nodiscard]] std::unique_ptr<learn::Model> make(const learn::ModelSpec& spec) const;
  /// Of the model that it pre-trains.
  [[nodiscard]] const learn::ModelSpec& own_spec() const;
  /// Throws Error(protocol) where that model would be above the run's limits.own_model.
  learn::Schema schema_of(const learn::ModelSpec& spec);

  /// Pre-trains the client's own model, or finds it in the store.
  plan::Pretraining pretrain(const TaskContext& context);
  /// The pre-trained model; a process that has none (it was started again) trains it.
  wire::PackedState pretrained(const TaskContext& context);

  /// Throws Error(usage) where the silo withholds it: then nothing of the model leaves but its weighted answers.
  void require_shared_model() const;
  /// See SiloOptions.
  [[nodiscard]] std::int64_t min_sum_samples() const { return options_.min_sum_samples; }

  /// See SiloOptions.
  [[nodiscard]] bool shows_metrics() const { return options_.shows_metrics; }

  /// What local objectives remember from round to round.
  [[nodiscard]] ClientMemory& memory() { return memory_; }

  /// Samples that the server sent, float32 as models take them or uint8 as they are stored, on the device. Throws
  /// Error(protocol) where they are not of the run's shape.
  [[nodiscard]] at::Tensor samples_of(const Input& input) const;

 private:
  [[nodiscard]] std::unique_ptr<learn::Model> make(const learn::ModelSpec& spec, Seed seed) const;
  /// Its samples by the run's constants.
  void take_up_samples();
  void note_what_is_odd();
  [[nodiscard]] learn::ModelSpec with_local_script(learn::ModelSpec spec) const;
  /// Throws Error(`code`) where the model of `spec`, `owner`'s, would be above the run's limits.own_model.
  void require_within_limit(const learn::ModelSpec& spec, const std::string& owner, Errc code);
  [[nodiscard]] std::string pretraining_key() const;
  /// Puts the pre-trained model into the store; where that fails, the work goes on without.
  void keep(const std::string& key, const plan::Pretraining& done) const;

  SiloOptions options_;
  learn::Dataset data_;
  learn::SampleFigures figures_;
  c10::Device device_;
  std::optional<PretrainedStore> store_;

  plan::Terms terms_;
  std::vector<std::string> remarks_;
  at::Tensor training_rows_, held_out_rows_;  ///< int64, among the silo's samples.
  std::string normalisation_;                 ///< Digest of what normalise() took up; empty: nothing.
  learn::Samples training_;
  learn::Samples held_out_;
  std::unique_ptr<learn::Model> global_model_;
  std::optional<wire::PackedState> pretrained_;
  ClientMemory memory_;
};

}  // namespace headstart::client
