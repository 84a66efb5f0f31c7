// The participants of a pair study: who holds which samples, and what each has learnt from them alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "experiments/lab/pair_settings.hpp"
#include "shared/base/clock.hpp"
#include "shared/learn/models/model.hpp"
#include "shared/learn/train/evaluation.hpp"

namespace headstart::lab {

/// Both splits of the data set of a study, loaded once.
struct StudyData {
  learn::Dataset train;
  learn::Dataset test;
};
StudyData load_study_data(const learn::DataSource& source);

/// One pre-trained model and how it does alone.
struct Participant {
  std::string name;
  learn::ModelSpec spec;
  learn::StateDict state;
  std::string digest;       ///< SHA-256 of the weights.
  learn::Samples training;  ///< Its own samples, those it held out left out; on the study's device.
  std::int64_t num_epochs = 0;
  learn::Evaluation test;
  learn::Evaluation validation;
};

/// All participants of one partition and seed, each made when it is first asked for: pre-trained, or taken from the
/// store of pre-trained models or from the user's files. Safe to use from several threads.
class Participants {
 public:
  /// `store`: folder of pre-trained models. Throws Error(usage) where the partition cannot be drawn.
  Participants(PairSettings settings, const StudyData& data, std::int64_t seed, std::filesystem::path store,
               Clock clock);
  ~Participants();
  Participants(const Participants&) = delete;
  Participants& operator=(const Participants&) = delete;

  [[nodiscard]] std::int64_t size() const { return std::ssize(places_); }
  /// Throws Error(data), naming the file, where a participant's model cannot be used; Error(interrupted) on `stop`.
  const Participant& at(std::int64_t index, std::stop_token stop = {});
  /// A network with the participant's weights, on the study's device.
  [[nodiscard]] std::unique_ptr<learn::Model> model_of(const Participant& participant) const;

  /// Samples to distil on for `student`: without labels where the set has none. At least one.
  [[nodiscard]] learn::Samples transfer(PairTransfer transfer, const Participant& student) const;
  [[nodiscard]] learn::Evaluation on_validation(learn::Model& model) const;
  [[nodiscard]] learn::Evaluation on_test(learn::Model& model) const;

  [[nodiscard]] const PairSettings& settings() const { return settings_; }
  [[nodiscard]] Seed seeds() const { return Seed(static_cast<std::uint64_t>(seed_)); }

 private:
  struct Place {
    std::mutex mutex;
    std::optional<Participant> participant;
  };
  Participant make(std::int64_t index, std::stop_token stop) const;
  void load_from_folder(Participant& participant, const std::string& name) const;

  PairSettings settings_;
  const StudyData& data_;
  std::int64_t seed_;
  std::filesystem::path store_;
  Clock clock_;
  learn::Task task_;
  c10::Device device_;
  learn::Manifest manifest_;
  learn::Samples validation_, public_large_, public_small_, public_labeled_, test_;
  std::vector<std::unique_ptr<Place>> places_;
};

}  // namespace headstart::lab
