// The tasks of plan/tasks.hpp as calls: each sends one and returns the validated answer. Throw as
// ClientSession::perform() does.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/sessions/client_session.hpp"
#include "shared/learn/train/evaluation.hpp"
#include "shared/learn/tune/setting_search.hpp"

namespace headstart::server {

net::Task<Pretraining> pretrain(ClientSession& client);

/// The pre-trained model's bytes: `num_bytes`, of the schema of the client's own architecture.
net::Task<Upload> exchange(ClientSession& client, std::uint64_t num_bytes);

/// What a client trains from in a round.
struct TrainInputs {
  ReleasedState model;
  std::vector<std::pair<std::string, ReleasedState>> parts;  ///< Beside the model, by name.
};
/// The update of a round: `num_bytes`. `place`: where it is to lie.
net::Task<Upload> train(ClientSession& client, plan::TrainSettings settings, TrainInputs inputs,
                        std::uint64_t num_bytes, UploadSlots::Place place);

/// Counts on the client's held-out data. `keeps_model`: the client holds it until it is given another to hold. Throws
/// Error(run_failed) where scores were asked for and are not there.
net::Task<plan::EvaluationFigures> evaluate(ClientSession& client, ReleasedState model, bool keeps_model,
                                            plan::EvaluateSettings settings);

/// Logits of the client's pre-trained model on `samples`, of which there are `num_samples`: float32 [n, C].
net::Task<Upload> logits(ClientSession& client, ReleasedState samples, std::uint64_t num_samples);

/// What is distilled at a client, from which, and how much each counts.
struct DistillInputs {
  ReleasedState student;
  ReleasedState weights;  ///< float64 [teachers, classes].
  std::vector<ReleasedState> teachers;
};
/// Consolidation on the client's own data; the client holds the inputs for another setting. The student's bytes.
net::Task<Upload> distill(ClientSession& client, DistillInputs inputs, learn::KdSetting setting);

/// A sum of the client's for fitting a head, in fixed point.
struct HeadSum {
  Upload upload;
  plan::HeadSumFigures figures;
};
/// Over whose features, and how they are mapped; the client holds all of it.
struct HeadSumInputs {
  std::vector<ReleasedState> models;
  std::optional<ReleasedState> projection, lift;
};
/// `head`: where the gradient is wanted; none: the second moments. `num_values` of the sum.
net::Task<HeadSum> head_sum(ClientSession& client, plan::HeadSumSettings settings, HeadSumInputs inputs,
                            std::optional<ReleasedState> head, std::int64_t num_values);

/// How much each of the `num_samples` `samples` is like the client's own: float64 [n]. The client holds the samples.
net::Task<Upload> densities(ClientSession& client, ReleasedState samples, std::uint64_t num_samples);
/// The client's answers on `samples` in fixed point, `num_bytes`. The client holds the samples.
net::Task<Upload> answers(ClientSession& client, plan::AnswerSettings settings, ReleasedState samples,
                          std::uint64_t num_bytes);

/// Has the client keep the global model of a round; it then holds the model. Only of a client that announced it.
net::Task<bool> keep(ClientSession& client, ReleasedState model, plan::KeepSettings settings);

/// What the client says of the features of its samples.
struct Description {
  Upload upload;  ///< learn::packed, of `num_features` features.
  plan::DescribeFigures figures;
};
net::Task<Description> describe(ClientSession& client, std::int64_t num_features);

/// `model` with BatchNorm statistics of the client's training data.
net::Task<Upload> reestimate_statistics(ClientSession& client, ReleasedState model);

}  // namespace headstart::server
