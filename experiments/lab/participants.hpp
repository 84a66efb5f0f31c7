// The participants of a study: who holds which samples, and what each has learnt from them alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "shared/base/clock.hpp"
#include "shared/base/fields.hpp"
#include "shared/learn/data/data_set.hpp"
#include "shared/learn/models/model.hpp"
#include "shared/learn/partition/manifest.hpp"
#include "shared/learn/train/evaluation.hpp"
#include "shared/learn/train/train.hpp"

namespace headstart::lab {

/// Both splits of the data set of a study, loaded once.
struct StudyData {
  learn::Dataset train;
  learn::Dataset test;
};
StudyData load_study_data(const learn::DataSource& source);
/// `description` of a study, with the digests of its data.
nlohmann::json with_digests(nlohmann::json description, const StudyData& data);
/// Throws Error(data), naming `file`, where `data` are not those of the study that `description` tells of.
void require_data_of(const nlohmann::json& description, const StudyData& data, const std::string& file);

/// All that participants depend on, but for the seed.
struct ParticipantSettings {
  learn::DataSource data;
  learn::DrawOptions draws;
  learn::PartitionOptions partition;
  learn::ModelSpec model;
  std::string participants;  ///< Folder of model files that take the place of pre-training; empty: none.
  double held_out = 0.1;
  learn::PretrainOptions pretrain;
  std::string device = "cpu";
  std::int64_t threads = 1;
};
void declare_fields(Fields& fields, ParticipantSettings& settings);

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
  Participants(ParticipantSettings settings, const StudyData& data, std::int64_t seed, std::filesystem::path store,
               Clock clock);
  ~Participants();
  Participants(const Participants&) = delete;
  Participants& operator=(const Participants&) = delete;

  [[nodiscard]] std::int64_t size() const { return std::ssize(places_); }
  /// Throws Error(data), naming the file, where a participant's model cannot be used; Error(interrupted) on `stop`.
  const Participant& at(std::int64_t index, std::stop_token stop = {});
  /// A network with the participant's weights, on the study's device.
  [[nodiscard]] std::unique_ptr<learn::Model> model_of(const Participant& participant) const;

  /// A network on the study's device; untrained, with the weights of the study's seed.
  [[nodiscard]] std::unique_ptr<learn::Model> untrained() const;

  /// On the study's device; public_large and public_small without labels.
  [[nodiscard]] const learn::Samples& public_large() const { return public_large_; }
  [[nodiscard]] const learn::Samples& public_small() const { return public_small_; }
  [[nodiscard]] const learn::Samples& public_labeled() const { return public_labeled_; }
  [[nodiscard]] const learn::Samples& test() const { return test_; }
  [[nodiscard]] const learn::Samples& validation() const { return validation_; }
  [[nodiscard]] std::int64_t num_classes() const { return task_.num_classes; }
  [[nodiscard]] learn::Evaluation on_validation(learn::Model& model) const;
  [[nodiscard]] learn::Evaluation on_test(learn::Model& model) const;

  [[nodiscard]] const ParticipantSettings& settings() const { return settings_; }
  [[nodiscard]] Seed seeds() const { return Seed(static_cast<std::uint64_t>(seed_)); }

 private:
  struct Place {
    std::mutex mutex;
    std::optional<Participant> participant;
  };
  Participant make(std::int64_t index, std::stop_token stop) const;
  void load_from_folder(Participant& participant, const std::string& name) const;

  ParticipantSettings settings_;
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

/// The participants of the partitions and seeds under way: cells come in their order, so the last few suffice. Safe to
/// use from several threads.
class ParticipantsCache {
 public:
  ParticipantsCache(const StudyData& data, std::filesystem::path models, Clock clock);

  /// Of one study, so that partition and seed tell them apart.
  std::shared_ptr<Participants> of(const ParticipantSettings& settings, std::int64_t seed);

 private:
  const StudyData& data_;
  std::filesystem::path models_;
  Clock clock_;
  std::mutex mutex_;
  std::vector<std::pair<std::string, std::shared_ptr<Participants>>> kept_;
};

}  // namespace headstart::lab
