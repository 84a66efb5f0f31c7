// The settings of all strategies.
#pragma once

#include <string>

#include "shared/base/fields.hpp"
#include "shared/learn/distill/distill_options.hpp"

namespace headstart::server {

struct ServerOptimizerOptions {
  double lr = 1;          ///< eta: the model moves by eta times the (accumulated) mean update.
  double momentum = 0.9;  ///< beta of FedAvgM, in [0, 1).
};

struct StrategyOptions {
  std::string name = "fedavg";  ///< Of strategies().
  ServerOptimizerOptions server;
  /// FedDF's distillation after each round, on unlabeled samples: alpha has no part in it. Adam and averaged logits:
  /// Lin et al. 2020; epochs and batch decided here.
  learn::DistillOptions feddf{.average = learn::TeacherAverage::logits, .epochs = 2, .batch_size = 128};
};

/// "federation.strategy", "server.lr", "feddf.epochs", ...
void declare_fields(Fields& fields, StrategyOptions& options);

}  // namespace headstart::server
