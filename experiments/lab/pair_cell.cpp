#include "experiments/lab/pair_cell.hpp"

#include <optional>
#include <utility>

#include <torch/types.h>

#include "shared/base/error.hpp"
#include "shared/learn/distill/pair_methods.hpp"
#include "shared/learn/tune/tune.hpp"

namespace headstart::lab {

namespace {

using learn::Tensor;
using nlohmann::json;

/// Samples to distil on for `student`: without labels where the set has none.
learn::Samples transfer_set(const Participants& participants, PairTransfer transfer, const Participant& student) {
  switch (transfer) {
    case PairTransfer::public_large:
      return participants.public_large();
    case PairTransfer::public_small:
      return participants.public_small();
    case PairTransfer::public_labeled:
      return participants.public_labeled();
    case PairTransfer::student:
      break;
  }
  return student.training;
}

/// What all methods share of one pair.
class Pair {
 public:
  Pair(Participants& participants, const PairCell& cell, std::stop_token stop)
      : participants_(participants),
        cell_(cell),
        stop_(std::move(stop)),
        teacher_(participants.at(cell.teacher, stop_)),
        student_(participants.at(cell.student, stop_)),
        transfer_(transfer_set(participants, cell.transfer, student_)),
        // The same for every method, so that they differ in nothing else.
        seed_(participants.seeds()
                  .child("pair")
                  .child(teacher_.name)
                  .child(student_.name)
                  .child(word_of(cell.transfer))) {}

  json run() {
    json metrics = {{"start", student_.test.accuracy()},
                    {"teacher", teacher_.test.accuracy()},
                    {"is_strong", teacher_.test.accuracy() > student_.test.accuracy()},
                    {"temperature", nullptr},
                    {"alpha", nullptr},
                    {"epochs", kd().epochs}};
    const std::unique_ptr<learn::Model> kept = distil(metrics);
    const learn::Evaluation after = participants_.on_test(*kept);
    const learn::Evaluation validated = participants_.on_validation(*kept);
    const learn::Change change = learn::change_between(student_.test, after);
    metrics["accuracy"] = after.accuracy();
    metrics["loss"] = after.loss();
    metrics["class_accuracy"] = after.class_accuracy();
    metrics["gain"] = after.accuracy() - student_.test.accuracy();
    metrics["learning"] = change.learning;
    metrics["forgetting"] = change.forgetting;
    metrics["validation"] = {{"start", student_.validation.accuracy()},
                             {"teacher", teacher_.validation.accuracy()},
                             {"accuracy", validated.accuracy()},
                             {"loss", validated.loss()}};
    return metrics;
  }

 private:
  [[nodiscard]] const learn::DistillOptions& kd() const { return cell_.settings.kd; }
  [[nodiscard]] bool on_student_data() const { return cell_.transfer == PairTransfer::student; }

  /// Returns the model that is kept.
  std::unique_ptr<learn::Model> distil(json& metrics) {
    switch (cell_.method) {
      case PairMethod::mutual:
        return learn_mutually(metrics);
      case PairMethod::partitioned:
        return partition(cell_.transfer == PairTransfer::public_labeled, metrics);
      case PairMethod::partitioned_supervised:
        return partition(true, metrics);
      case PairMethod::partitioned_unsupervised:
        return partition(false, metrics);
      case PairMethod::vanilla:
        record_setting({kd().temperature, kd().alpha}, metrics);
        return distilled(transfer_, vanilla_guidance(kd().temperature));
      case PairMethod::tuned:
        return search(*learn::staged_search(grid(), kd().epochs, transfer_.is_labeled()), metrics);
      case PairMethod::grid:
        return search(*learn::grid_search(grid(), kd().epochs, transfer_.is_labeled()), metrics);
      case PairMethod::automatic:
        return search(*learn::automatic_search(grid(), kd().epochs, transfer_.is_labeled()), metrics);
    }
    throw Error(Errc::internal, "a method that is none");
  }
  [[nodiscard]] const learn::SettingGrid& grid() const { return cell_.settings.grid; }

  void record_setting(const learn::KdSetting& setting, json& metrics) const {
    metrics["temperature"] = setting.temperature;
    if (transfer_.is_labeled()) metrics["alpha"] = setting.alpha;
  }

  const Tensor& teacher_logits() {
    if (!teacher_logits_.defined()) {
      teacher_logits_ = learn::logits_of(*participants_.model_of(teacher_), transfer_.x, 256, stop_);
    }
    return teacher_logits_;
  }
  const Tensor& copy_logits() {
    if (!copy_logits_.defined()) {
      copy_logits_ = learn::logits_of(*participants_.model_of(student_), transfer_.x, 256, stop_);
    }
    return copy_logits_;
  }

  /// On a public set the student's frozen copy is a second teacher, both at half the weight.
  learn::Guidance vanilla_guidance(double temperature) {
    std::vector<Tensor> logits = {teacher_logits()};
    if (!on_student_data()) logits.push_back(copy_logits());
    const Tensor weights = learn::equal_weights(std::ssize(logits), logits.front().size(1));
    learn::DistillOptions options = kd();
    options.temperature = temperature;
    return learn::guidance(torch::stack(logits), weights, options);
  }

  std::unique_ptr<learn::Model> distilled(const learn::Samples& transfer, const learn::Guidance& teachers) {
    auto student = participants_.model_of(student_);
    const auto lease = learn::lease_for(*student, layer_seed());
    learn::distill(*student, transfer, teachers, kd(), seed_, {}, stop_);
    return student;
  }

  std::unique_ptr<learn::Model> partition(bool is_supervised, json& metrics) {
    const auto labels = is_supervised ? std::optional<Tensor>(transfer_.y.cpu()) : std::nullopt;
    const Tensor mask = learn::teacher_mask(teacher_logits(), copy_logits(), labels);
    metrics["temperature"] = kd().temperature;
    metrics["taught_by_teacher"] = mask.to(torch::kDouble).mean().item<double>();
    const Tensor targets = learn::partitioned_targets(teacher_logits(), copy_logits(), mask, kd().temperature);
    return distilled(transfer_.without_labels(), learn::guidance_by(targets, kd()));
  }

  /// Kept is the model whose data the transfer set is; on a public set the student. Both are participant `student`.
  std::unique_ptr<learn::Model> learn_mutually(json& metrics) {
    auto student = participants_.model_of(student_);
    const auto teacher = participants_.model_of(teacher_);
    const auto lease = learn::lease_for(student->draws_globally() ? *student : *teacher, layer_seed());
    learn::learn_mutually(*student, *teacher, transfer_, kd(), seed_, {}, stop_);
    metrics["partner"] = participants_.on_test(*teacher).accuracy();
    metrics["epochs"] = 2 * kd().epochs;
    return student;
  }

  std::unique_ptr<learn::Model> search(learn::SettingSearch& search, json& metrics) {
    learn::TuneProblem problem{.make_student = [this] { return participants_.model_of(student_); },
                               .transfer = transfer_,
                               .guidance = [this](double temperature) { return vanilla_guidance(temperature); },
                               .options = kd(),
                               .seed = seed_,
                               .rate = [this](learn::Model& model) { return participants_.on_validation(model); },
                               .rates_epochs = cell_.settings.rates_epochs};
    if (cell_.method == PairMethod::grid) {
      problem.measure = [this](learn::Model& model) { return participants_.on_test(model).accuracy(); };
    }
    const auto lease = learn::lease_for(*participants_.model_of(student_), layer_seed());
    learn::TuneResult result = learn::tune(search, problem, {}, stop_);
    record_setting(result.setting, metrics);
    metrics["epochs"] = result.epochs;
    for (const learn::TrialRecord& trial : result.trials) metrics["trials"].push_back(described(trial));
    return std::move(result.student);
  }

  [[nodiscard]] json described(const learn::TrialRecord& trial) const {
    json record = {{"temperature", trial.setting.temperature}, {"epochs", trial.epochs}};
    record["alpha"] = transfer_.is_labeled() ? json(trial.setting.alpha) : json();
    record["validation_accuracy"] = trial.rating ? json(trial.rating->accuracy) : json();
    record["validation_loss"] = trial.rating ? json(trial.rating->loss) : json();
    if (trial.measured) record["accuracy"] = *trial.measured;
    for (const learn::Rating& rating : trial.curve) record["curve"].push_back({rating.accuracy, rating.loss});
    return record;
  }

  [[nodiscard]] Seed layer_seed() const { return seed_.child("layers"); }

  Participants& participants_;
  const PairCell& cell_;
  std::stop_token stop_;
  const Participant& teacher_;
  const Participant& student_;
  learn::Samples transfer_;
  Seed seed_;
  Tensor teacher_logits_;
  Tensor copy_logits_;
};

}  // namespace

json measure_participant(Participants& participants, const PairCell& cell, std::stop_token stop) {
  const Participant& participant = participants.at(cell.student, std::move(stop));
  const std::int64_t num_classes = std::ssize(participant.test.total);
  const Tensor counts = torch::bincount(participant.training.y.cpu(), {}, num_classes);
  return {{"accuracy", participant.test.accuracy()},
          {"loss", participant.test.loss()},
          {"class_accuracy", participant.test.class_accuracy()},
          {"validation", {{"accuracy", participant.validation.accuracy()}, {"loss", participant.validation.loss()}}},
          {"num_samples", participant.training.size()},
          {"classes",
           std::vector<std::int64_t>(counts.data_ptr<std::int64_t>(), counts.data_ptr<std::int64_t>() + num_classes)},
          {"epochs", participant.num_epochs},
          {"architecture", participant.spec.architecture()},
          {"model", participant.digest}};
}

json distil_pair(Participants& participants, const PairCell& cell, std::stop_token stop) {
  return Pair(participants, cell, std::move(stop)).run();
}

}  // namespace headstart::lab
