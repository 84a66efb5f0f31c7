#include "client/tasks/task_handler.hpp"

namespace headstart::client {

std::span<const TaskRow> local_tasks() {
  static constexpr TaskRow rows[] = {{plan::task::pretrain, make_pretrain},     {plan::task::exchange, make_exchange},
                                     {plan::task::train, make_train},           {plan::task::evaluate, make_evaluate},
                                     {plan::task::logits, make_logits},         {plan::task::distill, make_distill},
                                     {plan::task::statistics, make_statistics}, {plan::task::head_sum, make_head_sum},
                                     {plan::task::densities, make_densities},   {plan::task::answers, make_answers},
                                     {plan::task::describe, make_describe}};
  return rows;
}

}  // namespace headstart::client
